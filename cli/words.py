"""Say numbers, signals and decisions in words, the same in every view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

from workbench.decision import (
    Applied,
    Decision,
    Outcome,
    Resize,
    SetBatchSize,
    SetLearningRate,
    SetSync,
)
from workbench.record import Record
from workbench.signal import Signal

BARS = "▁▂▃▄▅▆▇█"
_NAMES = {
    "set_batch_size": "batch size",
    "set_learning_rate": "learning rate",
    "resize": "workers",
    "set_sync": "synchronisation",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A decision in words.

    Attributes:
        step: The step after which it was taken.
        epoch: From 1.
        policy: Who asked.
        what: Such as ``batch size``.
        before: Value before, or empty when it is not known.
        after: Value asked for.
        reason: The signals or the rule that led to it.
        outcome: ``applied``, ``refused``, ``deferred`` or empty.
        detail: What was changed, or why it was not.

    Example:
        >>> told = Told(step=7, epoch=1, policy="p", what="batch size", before="64", after="128",
        ...             reason="noise", outcome="refused", detail="too large")
        >>> told.change, told.answer
        ('batch size 64 → 128', 'refused: too large')
    """

    step: int
    epoch: int
    policy: str
    what: str
    before: str
    after: str
    reason: str
    outcome: str
    detail: str

    @property
    def change(self) -> str:
        """What was asked for."""
        if not self.after:
            return self.what
        return f"{self.what} {self.before} → {self.after}".replace("  ", " ")

    @property
    def answer(self) -> str:
        """What became of it."""
        if self.outcome in ("applied", "") or not self.detail:
            return self.outcome
        return f"{self.outcome}: {self.detail}"


def tell(record: Record) -> Told:
    """Return the record's decision in words.

    Example:
        >>> from workbench.facts import StepFacts
        >>> from workbench.signal import Signals
        >>> facts = StepFacts(step=9, epoch=0, samples=576, seconds=0.1, workers=1,
        ...                   batch_size_global=64, batch_size_target=64)
        >>> record = Record(facts=facts, signals=Signals(), policy="schedule",
        ...                 decision=SetBatchSize(128, reason="step 9"), outcome=Applied(step=9))
        >>> tell(record).change, tell(record).reason, tell(record).outcome
        ('batch size 64 → 128', 'step 9', 'applied')
    """
    what, before, after = _changed(record.decision, record)
    return Told(
        step=record.facts.step,
        epoch=record.facts.epoch + 1,
        policy=record.policy,
        what=what,
        before=before,
        after=after,
        reason=reason_of(record.decision),
        outcome=record.outcome.kind if record.outcome else "",
        detail=_detail(record.outcome),
    )


def tell_row(row: Mapping[str, Any]) -> Told:
    """Return a row of ``decisions.json`` in words: the same as :func:`tell` of its record.

    Example:
        >>> tell_row({"step": 9, "epoch": 0, "policy": "schedule", "decision": "set_batch_size",
        ...           "value": 128, "reason": "step 9", "outcome": "applied",
        ...           "batch_size_before": 64}).change
        'batch size 64 → 128'
    """
    value, kind = row.get("value"), str(row.get("decision", ""))
    before, after = "", "" if value is None else str(value)
    if kind == "set_batch_size":
        before, after = f"{row['batch_size_before']:,}", f"{value:,}"
    elif kind == "set_learning_rate":
        after = f"× {value:g}"
    return Told(
        step=int(row["step"]),
        epoch=int(row.get("epoch", 0)) + 1,
        policy=str(row.get("policy", "")),
        what=_NAMES.get(kind, kind),
        before=before,
        after=after,
        reason=str(row.get("reason") or row.get("signals") or ""),
        outcome=str(row.get("outcome", "")),
        detail=str(row.get("detail", "")),
    )


def reason_of(decision: Decision) -> str:
    """Return why: the policy's own sentence, or the signals it looked at.

    Example:
        >>> from workbench.signal import exact
        >>> reason_of(SetBatchSize(8, because=exact("loss", 0.5)))
        'loss 0.5'
    """
    return decision.reason or "; ".join(str(signal) for signal in decision.because)


def interval(signal: Signal) -> str:
    """Return value, interval and unit, without the name.

    Example:
        >>> interval(Signal(name="noise_scale", value=812.0, low=640.0, high=1010.0))
        '812 [640, 1,010]'
    """
    if not signal.determined:
        return "not yet determined" + (f" ({signal.reason})" if signal.reason else "")
    unit = f" {signal.unit}" if signal.unit else ""
    if signal.low == signal.value == signal.high:
        return f"{number(signal.value)}{unit}"
    return f"{number(signal.value)} [{number(signal.low)}, {number(signal.high)}]{unit}"


def number(value: float) -> str:
    """Return four significant digits, thousands apart.

    Example:
        >>> number(31204.4), number(0.43121), number(float("nan")), number(3e-7), number(2.0)
        ('31,204', '0.4312', 'nan', '3e-07', '2')
    """
    if not isfinite(value):
        return str(value).replace("inf", "∞")
    if (value == int(value) and abs(value) < 1e12) or abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.3e}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a time span for people.

    Example:
        >>> duration(0.42), duration(12.3), duration(75), duration(7500)
        ('0.4 s', '12.3 s', '1 min 15 s', '2 h 05 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return a small graph: the mean of each of ``width`` stretches, from lowest to highest bar.

    Values that are not finite are left out; constant values draw as low bars.

    Example:
        >>> sparkline([1, 2, 3, 4], 4), sparkline([5.0, 5.0], 8), sparkline([], 8)
        ('▁▃▆█', '▁▁', '')
    """
    kept = [value for value in values if isfinite(value)]
    if not kept or width < 1:
        return ""
    columns = min(width, len(kept))
    edges = [len(kept) * place // columns for place in range(columns + 1)]
    means = [sum(kept[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    if span <= 0 or not isfinite(span):
        return BARS[0] * columns
    return "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)


def _changed(decision: Decision, record: Record) -> tuple[str, str, str]:
    what = _NAMES.get(decision.kind, decision.kind)
    match decision:
        case SetBatchSize():
            return what, f"{record.facts.batch_size_target:,}", f"{decision.batch_size_global:,}"
        case Resize():
            return what, str(record.facts.workers), str(decision.workers)
        case SetLearningRate():
            return what, "", f"× {decision.scale:g}"
        case SetSync():
            return what, "", decision.strategy
        case _:
            return what, "", ""


def _detail(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return outcome.detail if isinstance(outcome, Applied) else outcome.reason
