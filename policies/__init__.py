"""Policies: one rule per file, named here."""
