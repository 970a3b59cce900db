"""What becomes of a record's numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import inf, isnan, nan

import pytest

from workbench import Record, Signal, Signals
from workbench.decision import Stop
from workbench.records import record_metrics, record_points
from workbench.records.metrics import notable
from workbench.signal import exact, undetermined

MakeRecord = Callable[..., Record]


def _with(record: Record, *signals: Signal) -> Record:
    return dataclasses.replace(record, signals=Signals.of(signals))


def test_a_record_gives_its_facts_and_its_signals_with_their_intervals(
    make_record: MakeRecord,
) -> None:
    assert record_metrics(make_record(200)) == {
        "loss": 0.5,
        "learning_rate": 0.1,
        "batch_size": 64.0,
        "batch_size_actual": 64.0,
        "workers": 2.0,
        "samples": 12_800.0,
        "epoch": 2.0,
        "throughput": 6400.0,
        "noise_scale": 812.0,
        "noise_scale_low": 640.0,
        "noise_scale_high": 1010.0,
    }


def test_an_undetermined_signal_gives_nothing(make_record: MakeRecord) -> None:
    record = _with(make_record(1), undetermined("noise_scale", reason="one small batch"))

    assert not any(name.startswith("noise_scale") for name in record_metrics(record))


def test_an_infinite_end_is_left_out(make_record: MakeRecord) -> None:
    record = _with(make_record(1), Signal(name="noise_scale", value=9.0, low=3.0, high=inf))
    numbers = record_metrics(record)

    assert (numbers["noise_scale"], numbers["noise_scale_low"]) == (9.0, 3.0)
    assert "noise_scale_high" not in numbers


def test_an_exact_signal_gives_one_number_and_goes_before_the_fact(make_record: MakeRecord) -> None:
    numbers = record_metrics(_with(make_record(1), exact("throughput", 123.0)))

    assert numbers["throughput"] == 123.0
    assert "throughput_low" not in numbers


def test_a_nan_loss_is_kept_even_when_the_loss_signal_is_undetermined(
    make_record: MakeRecord,
) -> None:
    record = _with(make_record(1, loss=nan), undetermined("loss", reason="not finite"))

    assert isnan(record_metrics(record)["loss"])


def test_the_last_step_of_an_epoch_shows_how_many_samples_it_had(make_record: MakeRecord) -> None:
    record = make_record(1)
    short = dataclasses.replace(
        record, facts=dataclasses.replace(record.facts, batch_size_global=17)
    )

    assert record_metrics(short)["batch_size_actual"] == 17.0
    assert record_metrics(short)["batch_size"] == record_metrics(record)["batch_size_actual"]


def test_a_name_that_mlflow_refuses_is_changed_to_one_it_takes(make_record: MakeRecord) -> None:
    record = _with(make_record(1), exact("my signal (µ)%", 1.0), exact("x" * 400, 2.0))
    names = list(record_metrics(record))

    assert "my signal ____" in names
    assert max(map(len, names)) <= 250


def test_points_carry_step_and_time(make_record: MakeRecord) -> None:
    points = list(record_points(make_record(7)))

    assert {(point.step, point.unix_ms) for point in points} == {(7, 1_700_000_007_000)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, False), ({"loss": nan}, True), ({"decision": Stop()}, True)],
)
def test_decisions_and_nan_are_notable(
    make_record: MakeRecord, changes: dict[str, object], expected: bool
) -> None:
    assert notable(make_record(1, **changes)) is expected
