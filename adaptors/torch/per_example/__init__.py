"""Each sample's own gradient norm, taken from one ordinary backward pass."""

from __future__ import annotations

from .measure import PerExample

__all__ = ["PerExample"]
