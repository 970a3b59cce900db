"""A training job in the user's own loop: draws batches, measures steps, applies decisions."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from workbench.codec import from_plain, to_plain
from workbench.cursor import Cursor, StepPlan, plan_step
from workbench.decision import (
    Applied,
    Decision,
    Outcome,
    Refused,
    SetBatchSize,
    SetLearningRate,
    Stop,
)
from workbench.engine import Engine
from workbench.errors import ConfigurationError, NonFiniteError
from workbench.facts import StepFacts
from workbench.learning_rate import learning_rate_factor
from workbench.record import Fault, Tracker
from workbench.sampling import Sampling
from workbench.signal import Signals
from workbench.span import SpanSink

from .answers import micro_batches, refusal
from .group import Group
from .meter import Meter
from .rate import ScaledRate
from .reaction import Finished, Reaction
from .ride import Ride
from .sampling import Samples, permutation
from .settings import JobSettings
from .stopwatch import Clock


class Job:
    """What :func:`workbench.adaptors.torch.attach` returns.

    ``for epoch in job.epochs(n): for batch in epoch:`` is the user's loop. Between two batches, when
    the optimizer has stepped, the job measures the step, asks its policies and applies the decision.

    Attributes:
        stopped: Why a policy ended the job, or empty.
        at_step_start: Whether the batch just drawn is the first of its step.
        at_boundary: Whether the optimizer steps after the batch just drawn.
    """

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        samples: Samples,
        group: Group,
        engine: Engine,
        settings: JobSettings,
        sampling: Sampling | None = None,
        grad_scaler: torch.amp.GradScaler | None = None,
        trackers: Sequence[Tracker] = (),
        spans: SpanSink | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Clock = time.perf_counter,
        wall_clock: Clock = time.time,
    ) -> None:
        self._samples, self._group, self._settings = samples, group, settings
        self._dataset_size = engine.dataset_size
        self._base_batch_size = self._batch_size = settings.batch_size
        self._scaling = grad_scaler is not None and grad_scaler.is_enabled()
        self._trackers, self._clock = tuple(trackers), clock
        self._should_stop, self._spans = should_stop, spans
        self._meter = Meter(
            model,
            optimizer,
            group,
            monitors=engine.monitors,
            settings=settings,
            grad_scaler=grad_scaler,
            clock=clock,
        )
        self._rate = ScaledRate(optimizer, self._meter.before_step, self._meter.after_step)
        self._reaction = Reaction(
            engine=engine,
            sampling=sampling or Sampling(),
            tally=self._meter.tally,
            lag=settings.read_lag,
            trackers=self._trackers,
            apply=self._apply,
            after=self._after_reaction,
            faults=self._lost_split,
            wall_clock=wall_clock,
        )
        self._ride = Ride(group, self._reaction.take, waits=settings.read_lag > 0)
        self._cursor, self._step = Cursor(), 0
        self._order: tuple[int, list[int]] = (-1, [])
        self._plan_changed = False
        self._idle_steps = 0
        self._started_at = clock()
        self.stopped = ""
        self.at_boundary = True
        self.at_step_start = True

    # What a loop may read -------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """The global batch size in force."""
        return self._batch_size

    @property
    def workers(self) -> int:
        """World size."""
        return self._group.workers

    @property
    def rank(self) -> int:
        """This process, from 0."""
        return self._group.rank

    @property
    def step(self) -> int:
        """Optimizer steps finished."""
        return self._step

    @property
    def samples(self) -> int:
        """Samples shown over all workers."""
        return self._cursor.samples

    @property
    def learning_rate(self) -> float:
        """The first group's rate with all factors, as the next step applies it."""
        return self._rate.learning_rate

    @property
    def signals(self) -> Signals:
        """The signals after the last step that was read."""
        return self._reaction.signals

    @property
    def interrupted(self) -> bool:
        """Whether the job was asked from outside to end."""
        return self._reaction.interrupted

    @property
    def seconds(self) -> float:
        """Time spent in steps since this process began, the same number on every worker."""
        return self._reaction.seconds

    # The loop -------------------------------------------------------------------------------------

    def epochs(self, count: int) -> Iterator[Epoch]:
        """Yield the epochs that are left of ``count``; fewer when a decision stops the job.

        A loop that breaks out of an epoch goes on with the next one.

        Raises:
            ConfigurationError: ``count`` is below 1.
        """
        if count < 1:
            raise ConfigurationError(f"epochs is {count}; allowed: 1 or more; use epochs=1")
        self._started_at = self._clock()
        while self._cursor.epoch < count and not self._ended:
            number = self._cursor.epoch
            yield Epoch(self, number)
            if self._cursor.epoch == number and not self._ended:  # the loop broke out
                self._cursor = Cursor(epoch=number + 1, samples=self._cursor.samples)
        self.flush()

    def observe(self, *, loss: torch.Tensor) -> None:
        """Tell the job the mean loss of the batch just drawn, before ``backward()``.

        It feeds the signal ``loss``, and its graph tells which gradients will come: a model with an
        output that the loss does not use needs it. Nothing is copied to the host here.

        Raises:
            ConfigurationError: ``loss`` is not one number.
        """
        self._meter.observe(loss)

    def flush(self) -> None:
        """React to the steps whose numbers are still under way.

        With several workers, all of them call it.
        """
        self._ride.settle()
        self._reaction.flush()

    def close(self) -> None:
        """Remove every hook from model and optimizer, and close the trackers.

        With several workers, all of them call it; while an exception is under way each does so for
        itself, and steps that wait for their numbers are dropped: the others may never come.
        """
        if self._group.workers > 1 and sys.exc_info()[0] is not None:
            self._ride.forget()
            self._reaction.forget()
        self.flush()
        self._meter.close()
        self._rate.close()
        self._samples.close()
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.flush()
        self._ride.forget()
        self._reaction.forget()
        self.close()

    # Its state as a value -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the job's own state (not the model's or optimizer's) as plain values.

        With several workers, all of them call it. Saving changes nothing of the run that goes on.
        """
        self._ride.settle()
        return {
            "cursor": to_plain(self._cursor),
            "step": self._step,
            "batch_size": self._batch_size,
            "base_batch_size": self._base_batch_size,
            **self._reaction.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state saved by :meth:`state_dict`, with any number of workers."""
        self._cursor = from_plain(Cursor, state["cursor"])
        self._step = state["step"]
        self._batch_size = state["batch_size"]
        self._base_batch_size = state["base_batch_size"]
        self._reaction.load_state_dict(state)
        self._set_rate()
        self._plan_changed = True

    # One step -------------------------------------------------------------------------------------

    @property
    def _ended(self) -> bool:
        return bool(self.stopped) or self.interrupted

    def _batches(self) -> Iterator[Any]:
        """Yield this worker's micro-batches until the epoch ends or the job does."""
        number = self._cursor.epoch
        while self._cursor.epoch == number and not self._ended:
            self._plan_changed = False
            stream = self._samples.stream(self._index_lists(number))
            while self._cursor.epoch == number and not (self._ended or self._plan_changed):
                yield from self._one_step(self._plan(self._cursor), stream)

    def _one_step(self, plan: StepPlan, stream: Iterator[Any]) -> Iterator[Any]:
        steps_before = self._rate.steps
        self._begin_metering()
        for at, part in enumerate(plan.parts):
            last = at == len(plan.parts) - 1
            began = self._clock()
            self._meter.drawing()
            batch = next(stream)
            drawn = self._clock()
            self._meter.expect(plan, part, last=last, riders=self._ride.vector)
            self.at_boundary, self.at_step_start = last, at == 0
            try:
                yield batch
            except GeneratorExit:
                if last and self._rate.steps > steps_before:
                    self._finish(plan, steps_before)
                raise
            self._span("data", began, drawn)
            self._span("compute", drawn, self._clock())
        began, step = self._clock(), self._step
        self._finish(plan, steps_before)
        self._span("monitor", began, self._clock(), step=step)

    def _finish(self, plan: StepPlan, steps_before: int) -> None:
        """The optimizer has stepped: measure, advance, decide."""
        now = self._clock()
        seconds, self._started_at = now - self._started_at, now
        metered = self._meter.finish(plan, seconds=seconds, stop=self._should_stop())
        stepped = self._rate.steps > steps_before
        self._check_stepping(stepped and metered.arrived)
        self._ride.arrived(metered.riders)
        epoch = self._cursor.epoch
        self._step += 1
        self._cursor = self._cursor.advanced(plan.size, dataset_size=self._dataset_size)
        known = {
            "step": self._step,
            "epoch": epoch,
            "samples": self._cursor.samples,
            "workers": self._group.workers,
            "batch_size_global": plan.size,
            "batch_size_target": self._batch_size,
            "learning_rate": self._rate.applied,
            "skipped": not stepped,
            **metered.known,
        }
        self._ride.send(Finished(known, self._meter.measured), metered.vector)
        sent = self._clock()
        reacted_to_measured = self._reaction.react(self._step)
        self._meter.spent(sent - now, measured=self._meter.measured)
        self._meter.spent(self._clock() - sent, measured=reacted_to_measured)

    def _begin_metering(self) -> None:
        step, some = self._step + 1, self._meter.samples_steps
        self._meter.begin(
            step,
            measured=some and self._reaction.measures(step),
            next_measured=some and self._reaction.measures(step + 1),
        )

    def _after_reaction(self, facts: StepFacts, outcome: Outcome | None) -> None:
        if isinstance(outcome, Applied):
            self._set_rate()
        self._meter.heard(facts.step)
        self._check_finite(facts)

    def _apply(self, decision: Decision) -> Outcome:
        """Carry out a decision at this step boundary, or say why not."""
        why_not = refusal(
            decision, self._settings, workers=self._group.workers, scaling=self._scaling
        )
        if why_not:
            return Refused(why_not)
        detail = ""
        if isinstance(decision, SetBatchSize):
            detail = self._set_batch_size(decision.batch_size_global)
        elif isinstance(decision, SetLearningRate):
            detail = f"learning-rate scale {decision.scale:.4g}"
        elif isinstance(decision, Stop):
            self.stopped = decision.reason or "a policy decided to stop"
            detail = "training ends"
        return Applied(step=self._step, detail=detail)

    def _set_batch_size(self, wanted: int) -> str:
        before, rate_before = self._batch_size, self._rate.learning_rate
        self._batch_size, self._plan_changed = wanted, True
        self._set_rate()
        detail = f"batch size {before} -> {wanted}"
        parts = micro_batches(wanted, self._settings, self._group.workers)
        if parts > 1:
            detail += f" in {parts} micro-batches a worker"
        if self._rate.learning_rate != rate_before:
            detail += f", learning rate {rate_before:.4g} -> {self._rate.learning_rate:.4g}"
        return detail

    def _span(self, name: str, start: float, stop: float, *, step: int | None = None) -> None:
        if self._spans is not None:
            self._spans.add(name, start, stop, (self._step if step is None else step) + 1)

    # Small things ---------------------------------------------------------------------------------

    def _set_rate(self) -> None:
        rule = learning_rate_factor(
            self._settings.learning_rate_rule, self._batch_size, self._base_batch_size
        )
        self._rate.factor = rule * self._reaction.learning_rate_scale

    def _plan(self, cursor: Cursor) -> StepPlan:
        return plan_step(
            cursor,
            self._batch_size,
            dataset_size=self._dataset_size,
            rank=self._group.rank,
            workers=self._group.workers,
            largest_part=self._settings.max_batch_size_per_worker,
        )

    def _index_lists(self, epoch: int) -> Iterator[list[int]]:
        """Yield what this worker draws for the rest of the epoch if nothing changes."""
        if self._order[0] != epoch:
            order = permutation(
                self._dataset_size,
                seed=self._settings.seed,
                epoch=epoch,
                shuffle=self._settings.shuffle,
            )
            self._order = (epoch, order)
        order, cursor = self._order[1], self._cursor
        while cursor.epoch == epoch:
            plan = self._plan(cursor)
            for start, stop in plan.parts:
                yield order[start:stop]
            cursor = cursor.advanced(plan.size, dataset_size=self._dataset_size)

    def _check_stepping(self, stepped: bool) -> None:
        self._idle_steps = 0 if stepped or self._scaling else self._idle_steps + 1
        if self._idle_steps > 1:
            raise ConfigurationError(
                "two batches were drawn without backward() and optimizer.step(); allowed: both for "
                "each batch, the job itself accumulates; use max_batch_size_per_worker instead of "
                "an accumulation of your own"
            )

    def _check_finite(self, facts: StepFacts) -> None:
        if facts.finite or facts.skipped:
            return
        self._ride.forget()
        self._reaction.forget()
        loss_is_finite = replace(facts, grad_sqnorm_small=None, grad_sqnorm_big=None).finite
        what = "gradient" if loss_is_finite else "loss"
        raise NonFiniteError(
            f"the {what} became NaN or infinite at step {facts.step} (epoch {facts.epoch}, learning "
            f"rate {facts.learning_rate or 0.0:.3g}); allowed: finite numbers; lower the learning rate, clip "
            "gradients, or look at the data of this step",
            step=facts.step,
        )

    def _lost_split(self, facts: StepFacts) -> tuple[Fault, ...]:
        """Say once why a single worker's batch cannot be split for the noise scale."""
        why_not = self._meter.lost()
        if not why_not:
            return ()
        return (Fault(part="split of the batch", step=facts.step, error=why_not),)


class Epoch:
    """One pass over the data: iterate it for batches."""

    def __init__(self, job: Job, number: int) -> None:
        self._job = job
        self.number = number

    def __iter__(self) -> Iterator[Any]:
        return self._job._batches()
