"""Benchmarks are programs beside the package: their tests find them in a checkout only."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

collect_ignore_glob = [] if BENCHMARKS.is_dir() else ["test_*.py"]  # the wheel brings none
sys.path.append(str(BENCHMARKS))
