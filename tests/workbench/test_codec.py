"""Records survive JSON exactly: every decision, outcome and non-finite number."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from math import inf, isnan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.codec import from_json, from_plain, to_json, to_plain
from workbench.decision import (
    Applied,
    Decision,
    Deferred,
    Keep,
    Outcome,
    Refused,
    Resize,
    SetBatchSize,
    SetLearningRate,
    SetSync,
    Stop,
)
from workbench.facts import StepFacts
from workbench.record import Fault, Proposal, Record
from workbench.signal import Signal, Signals

counts = st.integers(0, 2**40)
maybe = st.one_of(st.none(), st.floats())
texts = st.text(max_size=12)

signals = st.builds(
    Signal,
    name=texts,
    value=st.floats(),
    low=st.floats(),
    high=st.floats(),
    level=st.floats(0, 1),
    unit=texts,
    step=counts,
    reason=texts,
)
why: dict[str, Any] = {
    "because": st.lists(signals, max_size=2).map(tuple),
    "reason": texts,
}
decisions = st.one_of(
    st.builds(Keep, **why),
    st.builds(SetBatchSize, counts, **why),
    st.builds(SetLearningRate, st.floats(), **why),
    st.builds(Resize, counts, **why),
    st.builds(SetSync, texts, **why),
    st.builds(Stop, **why),
)
outcomes = st.one_of(
    st.builds(Applied, step=counts, detail=texts),
    st.builds(Refused, texts),
    st.builds(Deferred, texts),
)
facts = st.builds(
    StepFacts,
    step=counts,
    epoch=counts,
    samples=counts,
    seconds=st.floats(),
    workers=counts,
    batch_size_global=counts,
    batch_size_target=counts,
    small_batches=counts,
    grad_sqnorm_small=maybe,
    grad_sqnorm_big=maybe,
    loss=maybe,
    learning_rate=maybe,
    skipped=st.booleans(),
    origin=texts,
)
records = st.builds(
    Record,
    facts=facts,
    signals=st.lists(signals, max_size=3).map(Signals.of),
    decision=decisions,
    outcome=st.one_of(st.none(), outcomes),
    policy=texts,
    proposals=st.lists(
        st.builds(Proposal, policy=texts, decision=decisions, overruled=texts), max_size=2
    ).map(tuple),
    faults=st.lists(st.builds(Fault, part=texts, step=counts, error=texts), max_size=2).map(tuple),
    unix_time=st.floats(allow_nan=False),
)


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, NaN being equal to NaN, types included."""
    if isinstance(one, float) and isinstance(other, float) and isnan(one):
        return isnan(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


@given(record=records)
def test_a_record_comes_back_from_one_line_of_json(record: Record) -> None:
    line = to_json(record)
    assert "\n" not in line
    assert same(from_json(Record, line), record)


@given(record=records)
def test_a_second_trip_writes_the_same_bytes(record: Record) -> None:
    line = to_json(record)
    assert to_json(from_json(Record, line)) == line


@given(record=records, extra=st.dictionaries(st.text("xyz", min_size=3, max_size=5), st.integers()))
def test_fields_of_a_later_version_are_dropped_at_every_depth(
    record: Record, extra: dict[str, int]
) -> None:
    def widened(plain: Any) -> Any:
        if isinstance(plain, dict):
            return {**{key: widened(item) for key, item in plain.items()}, **extra}
        return [widened(item) for item in plain] if isinstance(plain, list) else plain

    later = widened(to_plain(record))
    assert same(from_plain(Record, json.loads(json.dumps(later))), record)


@given(record=records)
def test_fields_that_an_earlier_version_did_not_write_take_their_defaults(record: Record) -> None:
    plain = to_plain(record)
    for name in ("decision", "outcome", "policy", "proposals", "faults", "unix_time"):
        del plain[name]
    del plain["facts"]["origin"]
    read = from_plain(Record, plain)
    assert same(read.signals, record.signals)
    assert (read.decision, read.outcome, read.proposals) == (Keep(), None, ())
    assert (read.facts.origin, read.facts.step) == ("none", record.facts.step)


def test_a_missing_field_without_a_default_is_named() -> None:
    with pytest.raises(TypeError, match="samples"):
        from_plain(StepFacts, {"step": 1, "epoch": 0})


@given(decision=decisions, outcome=outcomes)
def test_unions_are_told_apart_by_kind(decision: Decision, outcome: Outcome) -> None:
    assert type(from_plain(Decision, to_plain(decision))) is type(decision)
    assert type(from_plain(Outcome, to_plain(outcome))) is type(outcome)


def test_a_kind_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match="no member of the union has kind 'explode'"):
        from_plain(Decision, {"kind": "explode"})


def test_a_value_that_cannot_be_saved_is_named_by_its_type() -> None:
    with pytest.raises(TypeError, match="set cannot be saved; allowed: frozen dataclasses"):
        to_plain({"seen": {1, 2}})


@dataclass(frozen=True)
class Memory:
    """The kind of state that a user's own policy keeps."""

    best: float | None = None
    history: tuple[tuple[int, float], ...] = ()
    pair: tuple[int, str] = (0, "")
    by_step: dict[int, float] = None  # type: ignore[assignment]
    by_name: dict[str, Signal] = None  # type: ignore[assignment]
    names: list[str] = None  # type: ignore[assignment]
    loose: tuple = ()  # type: ignore[type-arg]


def test_the_state_of_a_users_policy_comes_back_with_its_types() -> None:
    state = Memory(
        best=inf,
        history=((1, 0.5), (2, -inf)),
        pair=(3, "three"),
        by_step={10: 0.1},
        by_name={"loss": Signal(name="loss", value=1.0, low=1.0, high=1.0)},
        names=["a", "b"],
        loose=(1, "x"),
    )
    assert from_json(Memory, to_json(state)) == state
    assert from_json(Memory, to_json(Memory())) == Memory()


def test_a_whole_number_in_a_float_field_comes_back_as_a_float() -> None:
    assert type(from_json(SetLearningRate, '{"scale":2}').scale) is float
