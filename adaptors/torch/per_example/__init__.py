"""Each sample's own gradient norm, taken from one ordinary backward pass."""

from __future__ import annotations

from .coverage import NORMALISERS
from .measure import PerExample

__all__ = ["NORMALISERS", "PerExample"]
