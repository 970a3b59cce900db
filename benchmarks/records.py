"""Values a second into MLflow's sqlite, and what a record costs the training thread.

Runs alone: ``python benchmarks/records.py [--seconds 30]``; prints one JSON object a line. The
three ways into MLflow take turns, and their medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from workbench import Record, Signal, Signals, StepFacts
from workbench.records import (
    MLflowSink,
    MLflowStore,
    Shipper,
    SpoolReader,
    SpoolTracker,
    record_points,
)
from workbench.records.spool import encode

BATCH = 1000
SINGLE_CALLS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="upper bound of the run time")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        write_cost(Path(folder), writes=20_000)
        step_cost(Path(folder), seconds=min(8.0, seconds / 4))
        values_per_second(Path(folder), seconds=seconds / 2)


def record(step: int) -> Record:
    """Return a record like those of a real job: five signals, three with an interval."""
    facts = StepFacts(
        step=step,
        epoch=0,
        samples=64 * step,
        seconds=0.0123,
        workers=2,
        batch_size_global=64,
        batch_size_target=64,
        small_batches=2,
        grad_sqnorm_small=3.01234 + step,
        grad_sqnorm_big=2.04567 + step,
        loss=0.7654321 / step,
        learning_rate=0.1,
        origin="ranks",
    )
    signals = [
        Signal(name=name, value=step + 0.5, low=step - width, high=step + 0.5 + width, step=step)
        for name, width in (
            ("noise_scale", 9.1),
            ("gradient_variance", 3.2),
            ("loss_trend", 1.4),
            ("gradient_norm", 0.0),
            ("throughput", 0.0),
        )
    ]
    return Record(facts=facts, signals=Signals.of(signals), unix_time=1.7e9 + step / 100)


def write_cost(folder: Path, writes: int) -> None:
    """One call of ``write`` on the training thread, in turn with a call that does nothing."""
    tracker = SpoolTracker(folder / "write-cost")
    records = [record(step) for step in range(1, writes + 1)]
    written, nothing = [], []
    for item in records:
        nothing.append(nanoseconds(do_nothing, item))
        written.append(nanoseconds(tracker.write, item))
        time.sleep(0)  # a step would give the lock back too
    tracker.close()
    for name, costs in (("SpoolTracker.write", written), ("nothing (control)", nothing)):
        show("write_cost", what=name, median_ns=statistics.median(costs), p99_ns=p99(costs))
    costs = [nanoseconds(encode, item) for item in records[:2000]]
    show("encode_cost", what="own thread, per record", median_ns=statistics.median(costs))


def step_cost(folder: Path, seconds: float) -> None:
    """Steps with the tracker against steps without, interleaved; the control is without twice."""
    import torch

    torch.set_num_threads(1)
    rows, weights = torch.randn(256, 256), torch.randn(256, 256)
    tracker = SpoolTracker(folder / "step-cost")
    times: dict[str, list[float]] = {"with": [], "without": [], "control": []}
    began, step = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for name, costs in times.items():
            before = time.perf_counter()
            for _ in range(20):
                step += 1
                for _ in range(4):
                    torch.relu(rows @ weights)
                item = record(step)
                if name == "with":
                    tracker.write(item)
            costs.append(time.perf_counter() - before)
    tracker.close()
    median = {name: statistics.median(costs) for name, costs in times.items()}
    show(
        "step_cost",
        step_us=median["without"] / 20 * 1e6,
        ratio=median["with"] / median["without"],
        null_ratio=median["control"] / median["without"],
        rounds=len(times["with"]),
    )


def values_per_second(folder: Path, seconds: float) -> None:
    """The same values by single calls, by batches of 1,000, and by spool and shipper."""
    store = MLflowStore(folder / "workspace")
    run_id = store.start_run("benchmark")
    ways: dict[str, Callable[[int], int]] = {
        "log_metric": lambda turn: one_by_one(store, run_id, turn),
        "log_batch x 1000": lambda turn: in_batches(store, run_id, turn),
        "spool + shipper": lambda turn: by_shipper(store, run_id, folder, turn),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    began, turn = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        turn += 1
        for name, way in ways.items():
            before = time.perf_counter()
            values = way(turn)
            rates[name].append(values / (time.perf_counter() - before))
    for name, found in rates.items():
        show("values_per_second", way=name, median=statistics.median(found), rounds=turn)


def one_by_one(store: MLflowStore, run_id: str, turn: int) -> int:
    for point in list(record_points(record(turn)))[:SINGLE_CALLS]:
        store.client.log_metric(run_id, "one-" + point.name, point.value, step=turn)
    return min(SINGLE_CALLS, len(list(record_points(record(turn)))))


def in_batches(store: MLflowStore, run_id: str, turn: int) -> int:
    from mlflow.entities import Metric

    points = [p for step in range(100) for p in record_points(record(100 * turn + step))][:BATCH]
    metrics = [Metric("batch-" + p.name, p.value, p.unix_ms, p.step) for p in points]
    store.client.log_batch(run_id, metrics=metrics)
    return len(metrics)


def by_shipper(store: MLflowStore, run_id: str, folder: Path, turn: int) -> int:
    spool = folder / f"spool-{turn}"
    tracker = SpoolTracker(spool)
    for step in range(100):
        tracker.write(record(100 * turn + step))
    tracker.close()
    sink = MLflowSink(store, run_id)
    shipper = Shipper(SpoolReader(spool), sink, folder / f"state-{turn}", interval_seconds=0.01)
    if not shipper.start().close(timeout=60):
        raise SystemExit(f"not all values arrived: {shipper.error}")
    return shipper.sent_values


def nanoseconds(call: Callable[[Record], object], item: Record) -> int:
    before = time.perf_counter_ns()
    call(item)
    return time.perf_counter_ns() - before


def do_nothing(item: Record) -> None:
    del item


def p99(costs: list[int]) -> int:
    return sorted(costs)[len(costs) * 99 // 100]


def show(name: str, **figures: object) -> None:
    rounded = {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in figures.items()
    }
    print(json.dumps({"benchmark": f"records.{name}", **rounded}), flush=True)


if __name__ == "__main__":
    main()
