"""Plain lines, word for word."""

from __future__ import annotations

import io

from workbench import Record
from workbench.cli.plain import PlainLines
from workbench.lifecycle.ports import StageResult
from workbench.record import Fault
from workbench.testing import FixedClock


def test_a_run_as_plain_lines(growth: list[Record]) -> None:
    out = io.StringIO()
    with PlainLines(out, clock=FixedClock()) as lines:
        lines.pipeline_started("digits", "3f2a", "digits-3")
        lines.stage_started("prepare")
        lines.stage_ended(
            StageResult(name="prepare", status="reused", seconds=0.04, summary="1,797 rows")
        )
        lines.stage_started("train")
        for record in growth:
            lines.training(record, 512, 2)
        lines.note("the server is down")
        lines.stage_ended(StageResult(name="train", status="done", seconds=75, summary="4 steps"))
        lines.stage_ended(StageResult(name="audit", status="skipped", summary="not configured"))
    noise = "noise_scale 812 [640, 1010] samples"
    assert out.getvalue().splitlines() == [
        "digits: run digits-3 (3f2a)",
        "prepare    reused    0.0 s  1,797 rows",
        "train      started",
        "train      epoch 1/2  step 1  6,400 samples/s  loss 0.5  "
        "noise scale 812 [640, 1,010] samples  batch 64  2 workers",
        f"decision   step 2: batch size 64 → 128 (grow_with_noise: {noise} is surely above batch "
        "size 64) [applied]",
        f"decision   step 3: batch size 128 → 4,096 (grow_with_noise: {noise}) "
        "[refused: more than the data set]",
        "note       the server is down",
        "train      epoch 1/2  step 4  6,400 samples/s  loss 0.5  "
        "noise scale 812 [640, 1,010] samples  batch 128  2 workers  50%, 0.0 s left",
        "train      done    1 min 15 s  4 steps",
        "audit      skipped   0.0 s  not configured",
    ]


def test_training_is_told_at_most_every_five_seconds(make_record) -> None:  # type: ignore[no-untyped-def]
    out = io.StringIO()
    now = FixedClock()
    lines = PlainLines(out, clock=now)
    lines.stage_started("train")
    for step in range(1, 101):
        now.now = step * 0.5  # fifty seconds
        lines.training(make_record(step), 6400, 1)
    assert sum("epoch" in line for line in out.getvalue().splitlines()) == 10


def test_a_part_that_raised_is_told(make_record) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    out = io.StringIO()
    fault = Fault(part="policy Mine", step=1, error="KeyError: 'x'")
    PlainLines(out).training(replace(make_record(1), faults=(fault,)), 0, 0)
    assert "note       policy Mine raised and is off: KeyError: 'x'" in out.getvalue()


def test_a_script_whose_length_nobody_knows_shows_no_end(make_record) -> None:  # type: ignore[no-untyped-def]
    out = io.StringIO()
    PlainLines(out, clock=FixedClock()).training(make_record(1, loss=None), 0, 0)
    line = out.getvalue()
    assert "epoch 1  step 1" in line
    assert "%" not in line
    assert "loss" not in line
