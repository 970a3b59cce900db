"""Rooms of adaptors: each measures facts in one framework and applies decisions there."""
