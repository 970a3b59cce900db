"""A loop that owns its data and its model: each step is sent, reacted to, and recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from workbench.decision import (
    Applied,
    Decision,
    Outcome,
    Refused,
    SetBatchSize,
    SetLearningRate,
    SetSync,
    Stop,
)
from workbench.engine import Engine
from workbench.errors import NonFiniteError
from workbench.facts import StepFacts
from workbench.learning_rate import learning_rate_factor
from workbench.monitors.protocol import needs_of
from workbench.record import Fault, Tracker
from workbench.sampling import Sampling
from workbench.signal import Signals

from .exchange import HOST, LOSS_ROWS, MONITOR, SECONDS, STOP, Exchange, StepNumbers, StepSums
from .rate import ScaledRate
from .reaction import Clock, Finished, Reaction
from .sources import Source
from .sources.seen import Seen, host_totals
from .told import Told
from .wanted import wanted

OnBatchSize = Callable[[int], str | None]


class Watch:
    """What :func:`.watching.watch` returns.

    After each ``optimizer.step()`` the step is measured and, some steps later, policies are asked
    and their decision is applied.

    Attributes:
        epoch: The loop's epoch, from 0, for the record; the loop sets it.
        stopped: Why a policy ended the training, or empty.
        batch_size: The global batch size in force.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        source: Source,
        engine: Engine,
        *,
        batch_size: int,
        sampling: Sampling,
        exchange_every: int,
        learning_rate_rule: str,
        on_batch_size: OnBatchSize | None,
        trackers: Sequence[Tracker],
        should_stop: Callable[[], bool],
        clock: Clock,
        wall_clock: Clock,
    ) -> None:
        self._source, self._clock, self._should_stop = source, clock, should_stop
        self._rule, self._on_batch_size = learning_rate_rule, on_batch_size
        self._base_batch_size = self.batch_size = batch_size
        self._trackers, self._sums = tuple(trackers), StepSums()
        self._takes_norms = wanted(needs_of(engine.monitors)).gradients
        self._exchange = Exchange(source.group, source.device, every=exchange_every)
        self._reaction = Reaction(
            engine=engine,
            sampling=sampling,
            tally=self._sums,
            lag=0,
            trackers=self._trackers,
            apply=self._apply,
            after=self._after_reaction,
            faults=self._lost,
            wall_clock=wall_clock,
        )
        self._rate = ScaledRate(optimizer, lambda: None, self._finish)
        self._step, self._measured_now = 0, False
        self._reason, self._reasons_told = "", set[str]()
        self._told = Told()
        self._late_seconds, self._started_at = 0.0, clock()
        self.epoch, self.stopped = 0, ""
        self._begin()

    @property
    def workers(self) -> int:
        """World size."""
        return self._source.workers

    @property
    def step(self) -> int:
        """Optimizer steps finished."""
        return self._step

    @property
    def signals(self) -> Signals:
        """The signals after the last step that was reacted to."""
        return self._reaction.signals

    @property
    def interrupted(self) -> bool:
        """Whether a rank was asked from outside to end."""
        return self._reaction.interrupted

    @property
    def ended(self) -> bool:
        """Whether the loop is to end: a policy says so, or it was asked from outside."""
        return bool(self.stopped) or self.interrupted

    @property
    def learning_rate(self) -> float:
        """The first group's rate with all factors, as the next step applies it."""
        return self._rate.learning_rate

    def observe(self, *, loss: torch.Tensor | None = None, samples: int | None = None) -> None:
        """Tell the loss and size of the micro-batch just computed; once for each ``backward()``.

        Nothing is copied to the host here. A step of which nothing is told counts as a full one.

        Args:
            loss: One number, the mean over the micro-batch, not yet divided for accumulation.
            samples: Samples of this rank in it; by default its share of the global batch.

        Raises:
            ConfigurationError: ``loss`` is not one number, or ``samples`` not a whole one.
        """
        self._told.add(loss, self._share if samples is None else samples)

    def flush(self) -> None:
        """React to all steps taken so far; every rank calls it."""
        for finished, row in self._exchange.rest():
            self._reaction.take(finished, row)
        self._reaction.flush()

    def close(self) -> None:
        """React to what is left, let go of optimizer and model, close the trackers; on every rank."""
        self.flush()
        self._let_go()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.flush()
        self._let_go()

    def state_dict(self) -> dict[str, Any]:
        """Return the watch's own state as plain values; every rank calls it."""
        self.flush()
        return {
            "step": self._step,
            "samples": self._sums.samples,
            "batch_size": self.batch_size,
            "base_batch_size": self._base_batch_size,
            **self._reaction.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state saved by :meth:`state_dict`; the loop draws ``watch.batch_size`` again."""
        self._step, self._sums.samples = state["step"], state["samples"]
        self.batch_size, self._base_batch_size = state["batch_size"], state["base_batch_size"]
        self._reaction.load_state_dict(state)
        self._set_rate()
        self._begin()

    # One step -------------------------------------------------------------------------------------

    @property
    def _share(self) -> int:
        return max(self.batch_size // self.workers, 1)

    def _begin(self) -> None:
        self._measured_now = self._takes_norms and self._reaction.measures(self._step + 1)
        self._source.begin(measure=self._measured_now)
        self._told = Told()

    def _finish(self) -> None:
        """The optimizer has stepped: measure, send, react to what has arrived."""
        began = self._clock()
        seconds, self._started_at = began - self._started_at, began
        seen = self._source.collect() if self._measured_now else Seen()
        self._reason = seen.reason or self._reason
        self._step += 1
        known = {
            "step": self._step,
            "epoch": self.epoch,
            "workers": self.workers,
            "batch_size_target": self.batch_size,
            "learning_rate": self._rate.applied,
        }
        packed = self._clock()
        spent = self._source.seconds + self._late_seconds + packed - began
        numbers = StepNumbers(
            finished=Finished(known, self._measured_now),
            host=self._host_numbers(seen, seconds, spent),
            losses=self._told.losses,
            seen=seen,
        )
        self._exchange.add(numbers)
        for finished, row in self._exchange.arrived(self._step):
            self._reaction.take(finished, row)
        self._reaction.react(self._step)
        self._begin()
        self._late_seconds = self._clock() - packed

    def _host_numbers(self, seen: Seen, seconds: float, spent: float) -> list[float]:
        rows = self._told.rows or [self._share]
        apart = seen.own is not None and seen.own.numel() == len(rows)
        numbers = [0.0] * HOST
        numbers[LOSS_ROWS] = float(sum(size for _, size in self._told.losses))
        numbers[SECONDS], numbers[MONITOR] = seconds / self.workers, spent / self.workers
        numbers[STOP] = float(self._should_stop())
        return numbers + host_totals(seen, rows if apart else sum(rows))

    # Decisions ------------------------------------------------------------------------------------

    def _apply(self, decision: Decision) -> Outcome:
        """Carry out a decision, or say why not."""
        if isinstance(decision, SetBatchSize):
            return self._set_batch_size(decision.batch_size_global)
        if isinstance(decision, SetLearningRate):
            return Applied(step=self._step, detail=f"learning-rate scale {decision.scale:.4g}")
        if isinstance(decision, Stop):
            self.stopped = self.stopped or decision.reason or "a policy decided to stop"
            return Applied(step=self._step, detail="the loop is asked to end")
        if isinstance(decision, SetSync) and decision.strategy == "every_step":
            return Applied(step=self._step, detail="gradients are averaged at every step")
        return Refused("the loop wraps its own model: workers and synchronisation are fixed")

    def _set_batch_size(self, wanted: int) -> Outcome:
        if wanted == self.batch_size:  # asked again before the change could be seen in a step
            return Applied(step=self._step, detail=f"batch size {wanted} already")
        if self._on_batch_size is None:
            return Refused("the loop draws its own batches (give watch() on_batch_size=)")
        why_not = self._on_batch_size(wanted)
        if why_not:
            return Refused(why_not)
        before, self.batch_size = self.batch_size, wanted
        return Applied(step=self._step, detail=f"batch size {before} -> {wanted}")

    def _lost(self, facts: StepFacts) -> tuple[Fault, ...]:
        """Say once why this rank's small batches could not be measured."""
        reason, self._reason = self._reason, ""
        if not reason or reason in self._reasons_told:
            return ()
        self._reasons_told.add(reason)
        return (Fault(part="norms of the small batches", step=facts.step, error=reason),)

    def _after_reaction(self, facts: StepFacts, outcome: Outcome | None) -> None:
        if isinstance(outcome, Applied):
            self._set_rate()
        if facts.finite:
            return
        loss_is_finite = replace(facts, grad_sqnorm_small=None, grad_sqnorm_big=None).finite
        raise NonFiniteError(
            f"the {'gradient' if loss_is_finite else 'loss'} became NaN or infinite at step {facts.step}; "
            "allowed: finite numbers; lower the learning rate, clip gradients, or look at the data",
            step=facts.step,
        )

    def _set_rate(self) -> None:
        rule = learning_rate_factor(self._rule, self.batch_size, self._base_batch_size)
        self._rate.factor = rule * self._reaction.learning_rate_scale

    def _let_go(self) -> None:
        self._source.close()
        self._rate.close()
        for tracker in self._trackers:
            tracker.close()
