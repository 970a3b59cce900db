"""What must be said at the end of a training that went on although a part of it failed."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.record import Record


def remarks(history: Sequence[Record]) -> list[str]:
    """Return a clause for each part that raised, and one where every proposal was overruled.

    Args:
        history: The records that count, in order.

    Example:
        >>> from workbench import Signals, StepFacts
        >>> from workbench.record import Fault
        >>> facts = StepFacts(step=3, epoch=0, samples=24, seconds=0.1, workers=1,
        ...                   batch_size_global=8, batch_size_target=8)
        >>> fault = Fault(part="policy Mine", step=3, error="ValueError: no")
        >>> remarks([Record(facts=facts, signals=Signals(), faults=(fault,))])
        ['policy Mine raised at step 3 and was off from there (ValueError: no)']
    """
    said = [
        f"{fault.part} raised at step {fault.step:,} and was off from there ({fault.error})"
        for record in history
        for fault in record.faults
    ]
    if any(record.decision.kind != "keep" for record in history):
        return said
    overruled = [
        proposal for record in history for proposal in record.proposals if proposal.overruled
    ]
    if overruled:
        last = overruled[-1]
        count = f"{len(overruled):,} proposal{'s' * (len(overruled) > 1)}"
        said.append(f"{count} held back (the last, by {last.policy}: {last.overruled})")
    return said
