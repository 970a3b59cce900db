"""A training job in the user's own loop: draws batches, measures steps, applies decisions."""

from __future__ import annotations

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
from workbench.monitors.protocol import needs_of
from workbench.record import Fault, Tracker
from workbench.sampling import Sampling
from workbench.signal import Signals
from workbench.span import SpanSink

from .answers import micro_batches, refusal
from .gradients import Asked, Gradients
from .group import Group
from .groups import resolve_groups
from .measurement import Measurement
from .rate import ScaledRate
from .reaction import Finished, Reaction
from .reading import Reading
from .sampling import Samples, permutation
from .settings import JobSettings
from .stopwatch import DATA, FORWARD, OPTIMIZER, Stopwatch, memory_bytes
from .tally import Tally, origin_of
from .updates import Updates
from .wanted import wanted

Clock = Callable[[], float]

CALIBRATE_EVERY = 8
"""Where layers stand for the model, one measured step in so many is exact."""


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
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        device = parameters[0].device
        self._device, self._wanted = device, wanted(needs_of(engine.monitors))
        groups = resolve_groups(model, optimizer, self._wanted.groups)
        updates = resolve_groups(model, optimizer, self._wanted.updates)
        self._measurement = (
            Measurement(
                model, parameters, optimizer, wanted=self._wanted, groups=groups, clock=clock
            )
            if self._wanted.gradients
            else None
        )
        self._updates = Updates(parameters, updates) if updates else None
        self._watch = Stopwatch(clock, device, phases=self._wanted.phases or self._wanted.ranks)
        self._handles = [
            model.register_forward_hook(lambda *_: self._watch.mark(FORWARD))
            for _ in range(self._wanted.phases or self._wanted.ranks)
        ]
        self._tally = Tally(
            device, group, wanted=self._wanted, groups=list(groups), updates=list(updates)
        )
        self._gradients = Gradients(
            model,
            parameters,
            group,
            measurement=self._measurement,
            grad_scaler=grad_scaler,
            static_graph=settings.static_graph,
            seats=self._tally.length if settings.read_lag else 0,
            watch=self._watch,
        )
        self._rate = ScaledRate(optimizer, self._before_step, self._after_step)
        self._reaction = Reaction(
            engine=engine,
            sampling=sampling or Sampling(),
            tally=self._tally,
            lag=settings.read_lag,
            trackers=self._trackers,
            apply=self._apply,
            after=self._after_reaction,
            faults=self._lost_split,
            wall_clock=wall_clock,
        )
        self._riding: tuple[Finished, torch.Tensor] | None = None
        self._cursor, self._step = Cursor(), 0
        self._measured_now = False
        self._measured_steps = -1
        self._late_seconds = self._hook_seconds = 0.0
        self._order: tuple[int, list[int]] = (-1, [])
        self._plan_changed = False
        self._idle_steps = 0
        self._split_refused = False
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
        """Tell the job the mean loss of the batch just drawn (for the signal ``loss``).

        Nothing is copied to the host here.

        Raises:
            ConfigurationError: ``loss`` is not one number.
        """
        self._tally.observe(loss)

    def flush(self) -> None:
        """React to the steps whose numbers are still under way.

        With several workers, all of them call it.
        """
        self._settle()
        self._reaction.flush()

    def close(self) -> None:
        """Remove every hook from model and optimizer, and close the trackers."""
        self.flush()
        self._gradients.close()
        if self._measurement is not None:
            self._measurement.close()
        for handle in self._handles:
            handle.remove()
        self._rate.close()
        self._samples.close()
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.flush()
        self._riding = None
        self._reaction.forget()
        self.close()

    # Its state as a value -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the job's own state (not the model's or optimizer's) as plain values.

        With several workers, all of them call it. Saving changes nothing of the run that goes on.
        """
        self._settle()
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
        measured = self._wanted.sampled and self._reaction.measures(self._step + 1)
        self._measured_now = measured
        self._measured_steps += measured
        for at, part in enumerate(plan.parts):
            last = at == len(plan.parts) - 1
            rows = part[1] - part[0]
            weight = plan.weight(part)
            began = self._clock()
            self._watch.start()
            batch = next(stream)
            self._watch.mark(DATA)
            drawn = self._clock()
            self._gradients.expect(
                weight=weight,
                rows=rows,
                last=last,
                asked=self._asked(plan, weight, measured),
                riders=self._riding[1] if last and self._riding else None,
            )
            self._tally.expect(weight)
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
        phases = self._phases()
        measured = self._gradients.collect(size=plan.size)
        stepped = self._rate.steps > steps_before
        self._check_stepping(stepped and measured.arrived)
        self._arrived_riders(measured.riders)
        numbers = {**measured.numbers, **self._moved()}
        vector = self._tally.pack(
            numbers,
            seconds=seconds,
            stop=self._should_stop(),
            phases=phases,
            memory=memory_bytes(self._device) if self._wanted.ranks else 0.0,
        )
        epoch = self._cursor.epoch
        self._step += 1
        self._cursor = self._cursor.advanced(plan.size, dataset_size=self._dataset_size)
        apart = {"": plan.small_batches, "split": 2, "per-example": plan.size}
        known = {
            "step": self._step,
            "epoch": epoch,
            "samples": self._cursor.samples,
            "workers": self._group.workers,
            "batch_size_global": plan.size,
            "batch_size_target": self._batch_size,
            "small_batches": apart[measured.origin],
            "learning_rate": self._rate.applied,
            "skipped": not stepped,
            "origin": origin_of(plan, self._group.workers, apart=measured.origin),
            "preconditioner": self._measurement.preconditioner if self._measurement else "",
        }
        self._send(Finished(known, self._measured_now), vector)
        packed = self._clock()
        reacted_to_measured = self._reaction.react(self._step)
        self._count_late(packed - now, self._measured_now)
        self._count_late(self._clock() - packed, reacted_to_measured)

    # Numbers on their way -------------------------------------------------------------------------

    def _send(self, finished: Finished, vector: torch.Tensor) -> None:
        """Alone: read the vector. Together: let it ride with the next step's gradients."""
        if self._group.workers > 1 and self._settings.read_lag > 0:
            self._riding = (finished, vector)
            return
        work = self._group.sum(vector)
        if work is not None:
            work.wait()
        self._reaction.take(finished, Reading(vector))

    def _arrived_riders(self, sums: torch.Tensor | None) -> None:
        """The numbers of the step before have been added over the workers."""
        if self._riding is None:
            return
        if sums is None:  # no gradient was exchanged in this step
            self._settle()
            return
        finished, _ = self._riding
        self._riding = None
        self._reaction.take(finished, Reading(sums))

    def _settle(self) -> None:
        """Add what waits for a ride over the workers now."""
        if self._riding is None:
            return
        finished, vector = self._riding
        self._riding = None
        self._group.sum(vector).wait()
        self._reaction.take(finished, Reading(vector))

    def _phases(self) -> dict[str, float]:
        """Return the step's phases; a measured one pays what the one before it cost afterwards."""
        phases = self._watch.take()
        if self._measured_now:
            hooks = self._measurement.hook_seconds if self._measurement is not None else 0.0
            phases["monitor"] += self._late_seconds + hooks - self._hook_seconds
            self._late_seconds, self._hook_seconds = 0.0, hooks
        return phases

    def _count_late(self, seconds: float, measured: bool) -> None:
        if measured:
            self._late_seconds += seconds
        else:
            self._watch.monitor_seconds += seconds

    def _before_step(self) -> None:
        self._gradients.before_step()
        if self._updates is not None and self._measured_now:
            token = self._watch.began_measuring()
            self._updates.before()
            self._watch.ended_measuring(token)
        self._watch.start()

    def _after_step(self) -> None:
        self._watch.mark(OPTIMIZER)
        if self._updates is not None:
            token = self._watch.began_measuring()
            self._updates.after()
            self._watch.ended_measuring(token)

    def _moved(self) -> dict[str, torch.Tensor]:
        found = self._updates.take() if self._updates is not None else None
        return {} if found is None else {"weights": found[0], "updates": found[1]}

    def _after_reaction(self, facts: StepFacts, outcome: Outcome | None) -> None:
        if isinstance(outcome, Applied):
            self._set_rate()
        if self._measurement is not None and self._tally.doubt is not None:
            self._measurement.trust(self._tally.doubt)
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

    def _asked(self, plan: StepPlan, weight: float, measured: bool) -> Asked:
        """Return how to measure a micro-batch of a step that is ``measured`` or not."""
        step = self._step + 1
        compared = self._wanted.successive and (measured or self._reaction.measures(step + 1))
        if not (measured and self._wanted.gradients):
            return Asked(step=step if compared else 0)
        together = self._group.workers > 1
        alone = plan.small_batches == 1 and weight == 1.0 and not together
        how = self._settings.single_worker if alone and not self._split_refused else "none"
        if alone and self._wanted.covered and self._measured_steps % CALIBRATE_EVERY:
            how = "covered"
        return Asked(
            norms=True,
            how=how,
            step=step if compared else 0,
            dot=self._wanted.inner_products and together and len(plan.parts) == 1,
        )

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
        self._riding = None
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
        refusal = self._measurement.refusal if self._measurement is not None else ""
        if self._split_refused or not refusal:
            return ()
        self._split_refused = True
        return (Fault(part="split of the batch", step=facts.step, error=refusal),)


class Epoch:
    """One pass over the data: iterate it for batches."""

    def __init__(self, job: Job, number: int) -> None:
        self._job = job
        self.number = number

    def __iter__(self) -> Iterator[Any]:
        return self._job._batches()
