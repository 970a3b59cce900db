"""A made-up run, watched on whatever terminal this process has: a program for test_live.py."""

from __future__ import annotations

import time

from workbench import Record, SetBatchSize, Signal, Signals, StepFacts
from workbench.cli.watching import watcher
from workbench.decision import Applied
from workbench.lifecycle.ports import StageResult


def _record(step: int) -> Record:
    noise = Signal(name="noise_scale", value=90.0 + step, low=70.0, high=130.0, unit="samples")
    facts = StepFacts(
        step=step,
        epoch=0,
        samples=64 * step,
        seconds=0.01,
        workers=1,
        batch_size_global=64,
        batch_size_target=64,
        loss=1 / step,
    )
    return Record(
        facts=facts,
        signals=Signals.of([noise]),
        decision=SetBatchSize(128, because=noise),
        outcome=Applied(step=step),
        policy="grow_with_noise",
        unix_time=time.time(),
    )


def main() -> None:
    with watcher() as watching:
        watching.pipeline_started("digits", "3f2a", "digits-3")
        watching.stage_started("train")
        for step in range(1, 6):
            watching.training(_record(step), 640, 1)
            time.sleep(0.1)
        watching.note("the server is down")
        watching.stage_ended(StageResult(name="train", status="done", seconds=0.5))
    print("the end")


if __name__ == "__main__":
    main()
