"""The benchmark of monitors runs whether or not the tools of others are installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peers.kdiffusion import NoiseScale

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "monitor_overhead.py"
MODULES = {"AdaptDL": "adaptdl", "BackPACK": "backpack", "Cockpit": "cockpit"}


def rows(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--seconds", "0.05", "--warm-up", "2", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(row: dict[str, Any]) -> None:
    peer = row["arm"].split()[0]
    if peer in MODULES and importlib.util.find_spec(MODULES[peer]) is None:
        assert row["version"] is None
        assert row["skipped"] == f"ModuleNotFoundError: No module named {MODULES[peer]!r}"
    elif "skipped" not in row:
        assert 0.0 < row["ratio_low"] <= row["median_ratio"] <= row["ratio_high"]
        assert 0.0 < row["total_low"] <= row["total_high"]
        assert min(row["rounds"], row["step_ms"], row["against_step_ms"]) > 0
    else:
        assert peer in MODULES, "only the tools of others may be left out"


def test_every_case_has_the_null_control_ours_and_the_peers() -> None:
    found = rows("--case", "one", "--case", "cockpit", "--case", "two")
    for row in found:
        check(row)
    places = [(row["case"], row["arm"]) for row in found]
    assert len(places) == len(set(places)), "of two workers one reports"
    one = {arm for case, arm in places if case.startswith("one worker")}
    assert {"plain again", "ours, no monitors", "ours, default", "ours, every step"} < one
    assert {arm.split()[0] for arm in one} >= set(MODULES)
    two = {arm for case, arm in places if case.startswith("two workers")}
    ours = {
        f"{ours}, {how}" for ours in ("ours", "ours on DDP") for how in ("default", "every step")
    }
    assert {"DDP again", "k-diffusion style hook"} | ours < two


def test_the_hook_in_the_style_of_k_diffusion_finds_a_known_noise_scale() -> None:
    signal, noise, small, big = 3.0, 120.0, 32, 64
    scale = NoiseScale()
    for _ in range(5):
        own, reduced = signal + noise / small, signal + noise / big
        found = scale.update(own, reduced, small=small, big=big)
    assert found == pytest.approx(noise / signal)
