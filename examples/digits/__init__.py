"""Handwritten digits: scikit-learn's own 1,797 images of 8 x 8 pixels, no download."""
