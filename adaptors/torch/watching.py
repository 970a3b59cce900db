"""One line for a loop that owns its data and wraps its model itself: watch each optimizer step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from workbench.arbiter import Limits
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
from workbench.errors import ConfigurationError, NonFiniteError
from workbench.facts import StepFacts
from workbench.learning_rate import learning_rate_factor
from workbench.monitors import DEFAULT_MONITORS, build_monitor
from workbench.monitors.protocol import Monitor, needs_of
from workbench.policy import AnyPolicy
from workbench.record import Fault, Tracker
from workbench.sampling import Sampling, parse_share
from workbench.signal import Signals

from .attachment import _policies as chosen_policies
from .attachment import _stopper as stopper
from .attachment import _trackers as all_trackers
from .contract import read_contract
from .exchange import HOST, LOSS_ROWS, MONITOR, SECONDS, STOP, Exchange, StepNumbers, StepSums
from .group import Group
from .rate import ScaledRate
from .reaction import Finished, Reaction
from .sources import Source
from .sources.ddp import DDPSource
from .sources.fsdp import FSDPSource
from .sources.seen import Seen, host_totals
from .wanted import wanted

Clock = Callable[[], float]
OnBatchSize = Callable[[int], str | None]


class Watch:
    """What :func:`watch` returns.

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
            tally=self._sums,  # type: ignore[arg-type] # it is asked for read() alone
            lag=0,
            trackers=self._trackers,
            apply=self._apply,
            after=self._after_reaction,
            faults=self._lost,
            wall_clock=wall_clock,
        )
        self._rate = ScaledRate(optimizer, lambda: None, self._finish)
        self._step, self._measured_now = 0, False
        self._reason, self._told = "", set[str]()
        self._losses: list[tuple[torch.Tensor, int]] = []
        self._rows: list[int] = []
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
        rows = self._share if samples is None else samples
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise ConfigurationError(
                f"samples is {samples!r}; allowed: a whole number, 1 or more; give len(inputs)"
            )
        if loss is not None and (not isinstance(loss, torch.Tensor) or loss.numel() != 1):
            shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise ConfigurationError(
                f"loss is {shape}; allowed: a tensor with one number, the mean over the micro-batch; "
                "call watch.observe(loss=loss)"
            )
        self._rows.append(rows)
        if loss is not None:
            kept = loss.detach().to(torch.float64, copy=True)  # the loop may divide it in place
            self._losses.append((kept.reshape(()) if kept.dim() else kept, rows))

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
        self._losses, self._rows = [], []

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
            losses=self._losses,
            seen=seen,
        )
        self._exchange.add(numbers)
        for finished, row in self._exchange.arrived(self._step):
            self._reaction.take(finished, row)
        self._reaction.react(self._step)
        self._begin()
        self._late_seconds = self._clock() - packed

    def _host_numbers(self, seen: Seen, seconds: float, spent: float) -> list[float]:
        rows = self._rows or [self._share]
        apart = seen.own is not None and seen.own.numel() == len(rows)
        numbers = [0.0] * HOST
        numbers[LOSS_ROWS] = float(sum(size for _, size in self._losses))
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
        if not reason or reason in self._told:
            return ()
        self._told.add(reason)
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


def watch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int,
    policies: Sequence[AnyPolicy] = (),
    monitors: Sequence[Monitor | str] = DEFAULT_MONITORS,
    limits: Limits | None = None,
    learning_rate_rule: str = "none",
    on_batch_size: OnBatchSize | None = None,
    grad_scaler: torch.amp.GradScaler | None = None,
    micro_batches: bool = False,
    gradient_divide_factor: float | None = None,
    overhead: float | str = 0.01,
    measure_every: int = 0,
    exchange_every: int = 8,
    dataset_size: int = 0,
    trackers: Sequence[Tracker] = (),
    clock: Clock = time.perf_counter,
    wall_clock: Clock = time.time,
) -> Watch:
    """Watch a loop that owns its data and has wrapped its model in DDP or FSDP2.

    The loop stays as it is, but for ``watch.observe(loss=loss, samples=len(inputs))`` beside
    ``backward()`` and, where a policy may stop it, ``if watch.ended: break`` after the step. Norms
    are taken in the wrapper's own exchange of gradients (:mod:`.sources`), before any clipping, and no
    weight changes by one bit. Every rank watches the same things.

    Monitors get norms, loss, batch size, rate and seconds of each step; one that needs more stays
    undetermined. Facts are of steps that the optimizer took: one that a gradient scaler skips leaves
    no trace, but that the next one's small batches are not measured.

    Args:
        model: In ``DistributedDataParallel``, or after ``fully_shard``; its loss is the *mean* over
            the batch it was given.
        optimizer: Over the model's parameters.
        batch_size: *Global* batch size at the start, samples of an optimizer step over all ranks.
        policies: In order of precedence.
        monitors: Monitors, or names of :data:`workbench.monitors.MONITORS`.
        limits: Bounds and damping of decisions.
        learning_rate_rule: How the rate follows the batch: ``none``, ``linear``, ``square_root``.
        on_batch_size: Called on every rank, at the same step, with the new global batch size; the
            loop draws so many from then on, or returns a sentence why not.
        grad_scaler: The loop's scaler, so that norms are those of the unscaled gradient.
        micro_batches: Under DDP's ``no_sync()``, whether each micro-batch is measured apart.
        gradient_divide_factor: Of FSDP2, if one was set.
        overhead: The share of a step's time that measuring may take, such as ``"1%"``.
        measure_every: Measure each so many-th step instead, whatever it costs; 0: keep the budget.
        exchange_every: Steps whose numbers travel together; a decision falls that much later.
        dataset_size: Samples in the data set, as a bound of the batch size; 0: unknown.
        trackers: Where records go (rank 0 only).
        clock: Monotonic seconds.
        wall_clock: Seconds since 1970.

    Raises:
        ConfigurationError: Something given cannot work; the message says what to do.
    """
    _check(optimizer, batch_size, exchange_every)
    learning_rate_factor(learning_rate_rule, 1, 1)
    contract = read_contract()
    engine = Engine(
        monitors=tuple(build_monitor(m) if isinstance(m, str) else m for m in monitors),
        policies=chosen_policies(policies, contract),
        limits=limits or Limits(),
        dataset_size=dataset_size,
    )
    source = _source(model, grad_scaler, micro_batches, gradient_divide_factor, clock)
    group = Group(rank=dist.get_rank(source.group), workers=source.workers)
    return Watch(
        optimizer,
        source,
        engine,
        batch_size=batch_size,
        sampling=Sampling(overhead=parse_share(overhead), every=measure_every),
        exchange_every=exchange_every,
        learning_rate_rule=learning_rate_rule,
        on_batch_size=on_batch_size,
        trackers=all_trackers(trackers, contract, group),
        should_stop=stopper(contract),
        clock=clock,
        wall_clock=wall_clock,
    )


def _source(
    model: torch.nn.Module,
    grad_scaler: torch.amp.GradScaler | None,
    micro_batches: bool,
    gradient_divide_factor: float | None,
    clock: Clock,
) -> Source:
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return DDPSource(model, grad_scaler=grad_scaler, micro_batches=micro_batches, clock=clock)
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        if micro_batches:
            raise ConfigurationError(
                "micro_batches is True with FSDP2; allowed: False, FSDP2 shows the sum of a rank's "
                "micro-batches only; leave it out"
            )
        return FSDPSource(
            model,
            grad_scaler=grad_scaler,
            gradient_divide_factor=gradient_divide_factor,
            clock=clock,
        )
    raise ConfigurationError(
        f"model is a {type(model).__name__}, neither in DistributedDataParallel nor sharded by "
        "fully_shard(); allowed: one of the two; for a plain module use attach()"
    )


def _check(optimizer: Any, batch_size: Any, exchange_every: Any) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigurationError(
            f"optimizer is a {type(optimizer).__name__}; allowed: a torch.optim.Optimizer"
        )
    for name, value in (("batch_size", batch_size), ("exchange_every", exchange_every)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(
                f"{name} is {value!r}; allowed: a whole number, 1 or more; set {name}=8"
            )
