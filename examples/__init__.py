"""Bundled examples: pipelines with their own data and models."""
