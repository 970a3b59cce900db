"""Monitors are found by name, and options that cannot work are refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import workbench.monitors as room
from workbench.errors import ConfigurationError
from workbench.facts import StepFacts
from workbench.monitors import DEFAULT_MONITORS, MONITORS, build_monitor


def test_exported_names_exist_and_are_sorted_by_kind() -> None:
    assert set(DEFAULT_MONITORS) <= set(MONITORS)
    for name in room.__all__:
        assert hasattr(room, name)


@pytest.mark.parametrize("name", MONITORS)
def test_a_monitor_is_named_as_its_signal(name: str) -> None:
    monitor = build_monitor(name)
    facts = StepFacts(
        step=1, epoch=0, samples=8, seconds=0.5, workers=1, batch_size_global=8,
        batch_size_target=8,
    )  # fmt: skip
    _, signal = monitor.update(monitor.init(), facts)
    assert monitor.name == signal.name == name


@pytest.mark.parametrize("name", MONITORS)
def test_every_monitor_stands_in_the_table_of_signals(name: str) -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "monitors" / "index.md"
    if not page.exists():
        pytest.skip("the docs are not beside these tests")
    rows = [row for row in page.read_text(encoding="utf-8").splitlines() if row.startswith("| [`")]
    assert any(f"`{name}`" in row.split("](")[0] for row in rows)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("noise", {}, "allowed: noise_scale"),
        ("noise_scale", {"alpha": 1}, "allowed: level, min_steps, false_alarm"),
        ("loss", {"level": 0.9}, "allowed: none"),
        ("noise_scale", {"level": 1.0}, "above 0 and below 1"),
        ("noise_scale", {"level": "high"}, "above 0 and below 1"),
        ("noise_scale", {"level": float("nan")}, "above 0 and below 1"),
        ("noise_scale", {"min_steps": 3}, "4 or more"),
        ("noise_scale", {"min_steps": True}, "4 or more"),
        ("gradient_variance", {"false_alarm": 0}, "above 0 and below 1"),
        ("loss_smoothed", {"min_steps": 8.5}, "integer"),
        ("throughput", {"window_steps": 0}, "1 or more"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    name: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        build_monitor(name, options)
    assert "\n" not in str(caught.value)


def test_importing_the_monitors_brings_in_nothing_beyond_the_standard_library() -> None:
    script = (
        "import sys; import workbench.monitors; "
        "print([m for m in ('torch', 'numpy', 'pandas', 'pydantic', 'mlflow', 'scipy') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
