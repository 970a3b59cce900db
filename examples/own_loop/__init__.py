"""A training script of one's own, watched by two added lines."""
