"""The measuring side of a job: what is taken in which step, what it cost, and the vector it leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from workbench.cursor import StepPlan
from workbench.monitors.protocol import Monitor, needs_of

from .ear import Ear
from .gradients import Asked, Gradients
from .group import Group
from .groups import resolve_groups
from .measurement import Measurement
from .roster import Roster
from .settings import JobSettings
from .stopwatch import DATA, FORWARD, OPTIMIZER, Clock, Stopwatch, memory_bytes
from .tally import Tally, origin_of
from .updates import Updates
from .wanted import wanted

CALIBRATE_EVERY = 8
"""Where layers stand for the model, one measured step in so many is exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """What a finished step leaves.

    Attributes:
        vector: This worker's numbers, to be added over the workers.
        known: Fields of the step's facts that are known without them.
        riders: The sums of the numbers that rode along with this step's gradients.
        arrived: Whether a backward pass took place.
    """

    vector: torch.Tensor
    known: dict[str, Any]
    riders: torch.Tensor | None
    arrived: bool


class Meter:
    """Measures the steps of a job on this worker, and the time that measuring takes.

    Args:
        model: The plain module.
        optimizer: Over its parameters.
        group: The workers.
        monitors: They say what is wanted.
        settings: The job's.
        grad_scaler: The loop's, or ``None``.
        clock: Monotonic seconds.

    Attributes:
        tally: Who reads the vectors.
        measured: Whether the step under way is measured.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        group: Group,
        *,
        monitors: Iterable[Monitor],
        settings: JobSettings,
        grad_scaler: torch.amp.GradScaler | None,
        clock: Clock,
    ) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._device, self._group, self._settings = parameters[0].device, group, settings
        self._clock, self._roster = clock, Roster(model, optimizer, parameters)
        self._wanted = ask = wanted(needs_of(monitors))
        groups = resolve_groups(model, optimizer, ask.groups)
        updates = resolve_groups(model, optimizer, ask.updates)
        self._measurement = (
            Measurement(model, parameters, optimizer, wanted=ask, groups=groups, clock=clock)
            if ask.gradients
            else None
        )
        self._updates = Updates(parameters, updates) if updates else None
        timed = ask.phases or ask.ranks
        self._watch = Stopwatch(clock, self._device, phases=timed)
        ear = Ear(lambda *_: self._watch.mark(FORWARD))
        self._forward_mark = model.register_forward_hook(ear) if timed else None
        self.tally = Tally(
            self._device, group, wanted=ask, groups=list(groups), updates=list(updates)
        )
        self._gradients = Gradients(
            model,
            parameters,
            group,
            measurement=self._measurement,
            grad_scaler=grad_scaler,
            static_graph=settings.static_graph,
            seats=self.tally.length if settings.read_lag else 0,
            watch=self._watch,
        )
        self.measured = False
        self._step, self._compared = 0, False
        self._measured_steps = -1
        self._late_seconds = self._hook_seconds = 0.0
        self._gave_up = False

    @property
    def samples_steps(self) -> bool:
        """Whether anything is taken on some steps only."""
        return self._wanted.sampled

    def begin(self, step: int, *, measured: bool, next_measured: bool) -> None:
        """Get ready for a step; whether the next is measured matters to what compares the two."""
        self._gradients.forget()
        self.tally.forget()
        self._step, self.measured = step, measured
        self._compared = self._wanted.successive and (measured or next_measured)
        self._measured_steps += measured

    def drawing(self) -> None:
        """The loop waits for its batch."""
        self._watch.start()

    def expect(
        self, plan: StepPlan, part: tuple[int, int], *, last: bool, riders: torch.Tensor | None
    ) -> None:
        """Get ready for a micro-batch, which has been drawn."""
        self._watch.mark(DATA)
        weight = plan.weight(part)
        self._gradients.expect(
            weight=weight,
            rows=part[1] - part[0],
            last=last,
            asked=self._asked(plan, weight),
            riders=riders if last else None,
        )
        self.tally.expect(weight)

    def observe(self, loss: torch.Tensor) -> None:
        """Take the mean loss of the current micro-batch."""
        self.tally.observe(loss)
        self._gradients.tell(loss)

    def before_step(self) -> None:
        """The optimizer is about to step."""
        self._roster.check()
        self._gradients.before_step()
        if self._updates is not None and self.measured:
            token = self._watch.began_measuring()
            self._updates.before()
            self._watch.ended_measuring(token)
        self._watch.start()

    def after_step(self) -> None:
        """The optimizer has stepped."""
        self._watch.mark(OPTIMIZER)
        if self._updates is not None and self.measured:
            token = self._watch.began_measuring()
            self._updates.after()
            self._watch.ended_measuring(token)

    def finish(self, plan: StepPlan, *, seconds: float, stop: bool) -> Metered:
        """Return what the step leaves, which took ``seconds`` on this worker."""
        phases = self._phases()
        measured = self._gradients.collect(size=plan.size)
        moved = self._updates.take() if self._updates is not None else None
        numbers = dict(measured.numbers)
        if moved is not None:
            numbers["weights"], numbers["updates"] = moved
        memory = memory_bytes(self._device) if self._wanted.ranks else 0
        vector = self.tally.pack(
            numbers, seconds=seconds, stop=stop, phases=phases, memory=float(memory)
        )
        small_batches = {"": plan.small_batches, "split": 2, "per-example": plan.size}
        known = {
            "small_batches": small_batches[measured.origin],
            "origin": origin_of(plan, self._group.workers, apart=measured.origin),
            "preconditioner": self._measurement.preconditioner if self._measurement else "",
        }
        return Metered(vector=vector, known=known, riders=measured.riders, arrived=measured.arrived)

    def spent(self, seconds: float, *, measured: bool) -> None:
        """Count time that a step took after its end; a measured one's goes to the next measured."""
        if measured:
            self._late_seconds += seconds
        else:
            self._watch.monitor_seconds += seconds

    def heard(self, step: int) -> None:
        """Act on what ``step``, which was read, says of the way to measure."""
        doubts = self.tally.doubts.pop(step, {})
        if self._measurement is None:
            return
        if "doubt" in doubts:
            self._measurement.trust(doubts["doubt"])
        if "beside" in doubts:
            self._measurement.beside(doubts["beside"])

    def lost(self) -> str:
        """Return, once, why a single worker's batch cannot be taken apart; else an empty string."""
        refusal = self._measurement.refusal if self._measurement is not None else ""
        if self._gave_up or not refusal:
            return ""
        self._gave_up = True
        return refusal

    def close(self) -> None:
        """Remove every hook."""
        self._gradients.close()
        if self._measurement is not None:
            self._measurement.close()
        if self._forward_mark is not None:
            self._forward_mark.remove()

    def _asked(self, plan: StepPlan, weight: float) -> Asked:
        step = self._step if self._compared else 0
        if not (self.measured and self._wanted.gradients):
            return Asked(step=step)
        together = self._group.workers > 1
        alone = plan.small_batches == 1 and weight == 1.0 and not together
        how = self._settings.single_worker if alone and not self._gave_up else "none"
        if alone and self._wanted.covered and self._measured_steps % CALIBRATE_EVERY:
            how = "covered"
        dot = self._wanted.inner_products and together and len(plan.parts) == 1
        return Asked(norms=True, how=how, step=step, dot=dot)

    def _phases(self) -> dict[str, float]:
        """Return the step's phases; a measured one pays what the one before it cost afterwards."""
        phases = self._watch.take()
        if self.measured:
            hooks = self._measurement.hook_seconds if self._measurement is not None else 0.0
            phases["monitor"] += self._late_seconds + hooks - self._hook_seconds
            self._late_seconds, self._hook_seconds = 0.0, hooks
        return phases
