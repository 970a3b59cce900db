"""What is said at the end of a training that went on although a part of it failed."""

from __future__ import annotations

from workbench import SetBatchSize, Signals, StepFacts
from workbench.lifecycle.remarks import remarks
from workbench.record import Fault, Proposal, Record


def record(step: int, *, decided: bool = False, overruled: str = "", fault: str = "") -> Record:
    facts = StepFacts(
        step=step,
        epoch=0,
        samples=8 * step,
        seconds=0.1,
        workers=1,
        batch_size_global=8,
        batch_size_target=8,
    )
    asked = SetBatchSize(16)
    proposals = (Proposal(policy="Mine", decision=asked, overruled=overruled),) if overruled else ()
    faults = (Fault(part=fault, step=step, error="ValueError: no"),) if fault else ()
    signals = Signals()
    if decided:
        return Record(
            facts=facts, signals=signals, decision=asked, proposals=proposals, faults=faults
        )
    return Record(facts=facts, signals=signals, proposals=proposals, faults=faults)


def test_a_quiet_training_needs_no_remark() -> None:
    assert remarks([]) == remarks([record(1), record(2, decided=True)]) == []


def test_every_part_that_raised_is_named_with_its_step() -> None:
    said = remarks([record(1), record(2, fault="policy A"), record(3, fault="monitor b")])
    assert [line.split(" and ")[0] for line in said] == [
        "policy A raised at step 2",
        "monitor b raised at step 3",
    ]


def test_proposals_that_were_all_overruled_are_counted_with_the_last_reason() -> None:
    said = remarks([record(1, overruled="cooling down"), record(2, overruled="too small")])
    assert said == ["2 proposals held back (the last, by Mine: too small)"]


def test_overruled_proposals_beside_a_decision_are_not_told() -> None:
    assert remarks([record(1, overruled="cooling down"), record(2, decided=True)]) == []
