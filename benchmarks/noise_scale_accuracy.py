"""How near the truth each way of averaging a noise scale comes: steady, growing, after a step.

The same numbers go to every arm: the two squared norms of Gaussian gradients whose noise scale is
known, drawn as chi-squares. ``ours`` is the monitor ``noise_scale``, step by step; ``average 0.9``
and ``average 0.99`` are averages with a fixed rate (KungFu's way takes 0.9), ``sums`` adds all steps
(gpt-neox's way), ``adaptdl`` is the class of AdaptDL itself, where it is installed
(``make bench-peers``). All average ``S_hat`` and ``|G|^2_hat`` apart and divide afterwards.

One JSON object a line: the error at the last step, relative to the truth, as median and 95 %
quantile over the seeds; how many values were negative or missing; and for ours how many intervals
held the truth of the step that the signal names, and their median width. Ours is computed anew after
every 16th step at the latest: its error counts what the truth has moved since.

    python benchmarks/noise_scale_accuracy.py [--seeds 40]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from math import inf, isfinite, nan
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.facts import StepFacts
from workbench.monitors import NoiseScale

Array = NDArray[np.float64]
BATCH, SMALL_BATCHES = 64, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A noise scale for each step, and in how many directions the gradient scatters."""

    name: str
    truth: Array
    directions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What an arm says at the last step; an arm without intervals leaves the ends NaN.

    ``behind`` is how many steps ago it was computed.
    """

    value: float
    low: float = nan
    high: float = nan
    behind: int = 0


Arm = Callable[[Array, Array], Guess]
"""From the squared norms of the small batches and of the big one, step by step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    given = parser.parse_args()
    arms: dict[str, Arm] = {
        "ours": ours,
        "average 0.9": lambda small, big: averaged(small, big, 0.9),
        "average 0.99": lambda small, big: averaged(small, big, 0.99),
        "sums": lambda small, big: averaged(small, big, 1.0),
    }
    tracker, reason = adaptdl_tracker()
    if tracker is None:
        print(f"adaptdl is left out: {reason}; `make bench-peers` installs it", file=sys.stderr)
    else:
        made = tracker
        arms["adaptdl"] = lambda small, big: adaptdl(made, small, big)
    for case in cases():
        small, big = drawn(case, given.seeds)
        for name, arm in arms.items():
            guesses = [arm(one, other) for one, other in zip(small, big, strict=True)]
            print(json.dumps(row(case, name, guesses)), flush=True)


def cases() -> list[Case]:
    """Steady at one and at four batches; ten times up and down in 300 steps; a step 100 steps ago."""
    t = np.linspace(0.0, 1.0, 300)
    shapes = {
        "steady, 1 batch": np.full(1000, 1.0),
        "steady, 4 batches": np.full(1000, 4.0),
        "grows 10x in 300 steps": np.concatenate([np.full(300, 0.4), 0.4 * 10**t]),
        "grows 10x in a straight line": np.concatenate([np.full(300, 0.4), 0.4 + 3.6 * t]),
        "shrinks 10x in 300 steps": np.concatenate([np.full(300, 4.0), 4.0 * 10**-t]),
        "steps 10x, 100 steps ago": np.where(np.arange(600) < 500, 0.4, 4.0),
    }
    return [
        Case(name=name, truth=BATCH * shape, directions=directions)
        for name, shape in shapes.items()
        for directions in (64, 1_000, 10_000)
    ]


def drawn(case: Case, seeds: int) -> tuple[Array, Array]:
    """Return the squared norms of the small batches and of the big one, ``[seed, step]``."""
    rng = np.random.default_rng(17)
    shape = (seeds, len(case.truth))
    degrees = case.directions * (SMALL_BATCHES - 1)
    noise = rng.chisquare(degrees, shape) / degrees
    centre = np.broadcast_to(BATCH * case.directions / case.truth, shape)
    big = rng.noncentral_chisquare(case.directions, centre) / (BATCH * case.directions)
    return noise * (SMALL_BATCHES - 1) / BATCH + big, big


def ours(small: Array, big: Array) -> Guess:
    """Run the monitor as a job does."""
    monitor = NoiseScale()
    state = monitor.init()
    signal = state.signal
    for step, (one, other) in enumerate(zip(small.tolist(), big.tolist(), strict=True), start=1):
        facts = StepFacts(
            step=step, epoch=0, samples=BATCH * step, seconds=0.1, workers=SMALL_BATCHES,
            batch_size_global=BATCH, batch_size_target=BATCH, small_batches=SMALL_BATCHES,
            grad_sqnorm_small=one, grad_sqnorm_big=other, origin="ranks",
        )  # fmt: skip
        state, signal = monitor.update(state, facts)
    behind = len(small) - signal.step
    return Guess(value=signal.value, low=signal.low, high=signal.high, behind=behind)


def averaged(small: Array, big: Array, rate: float) -> Guess:
    """Average with weights ``rate^age``, all alike at a rate of 1, and divide."""
    noise = BATCH * (small - big) / (SMALL_BATCHES - 1)
    weights = rate ** np.arange(len(small))[::-1]
    signal = float((weights * (big - noise / BATCH)).sum())
    return Guess(value=float((weights * noise).sum()) / signal if signal else inf)


def adaptdl_tracker() -> tuple[Callable[[], Any] | None, str]:
    """Return a maker of AdaptDL's tracker over one parameter, or why there is none."""
    try:
        import torch

        tracker = import_module("adaptdl.torch.gradient_noise_scale").GradientNoiseScale
    except Exception as error:  # its imports fail in many ways with newer packages
        return None, f"{type(error).__name__}: {error}".splitlines()[0]
    logging.getLogger().setLevel(logging.WARNING)  # it turns on the root logger when imported

    def made() -> Any:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        loop = SimpleNamespace(require_backward_grad_sync=True)
        return tracker(loop, optimizer, num_replicas=SMALL_BATCHES)

    return made, ""


def adaptdl(made: Callable[[], Any], small: Array, big: Array) -> Guess:
    """Hand the norms to AdaptDL's own end-of-step callback, as if replicas had summed them.

    A parameter of one number holds a gradient of the length wanted. Its variance is that of one
    replica's gradient: times the replica's samples it is that of one sample.
    """
    import torch

    tracker = made()
    tracker._async_op = SimpleNamespace(wait=lambda: None)
    parameter = tracker._optimizer.param_groups[0]["params"][0]
    for one, other in zip(small.tolist(), big.tolist(), strict=True):
        parameter.grad = torch.tensor([other**0.5])
        tracker._local_sqr = torch.tensor([SMALL_BATCHES * one], dtype=torch.float64)
        tracker._accum_count = 1
        tracker._final_callback()
    strength = tracker.sqr_avg()
    variance = tracker.var_avg() * BATCH / SMALL_BATCHES
    return Guess(value=variance / strength if strength > 0.0 else inf)


def row(case: Case, arm: str, guesses: list[Guess]) -> dict[str, object]:
    """Return the line of one arm in one case."""
    truth = float(case.truth[-1])
    values = np.array([guess.value for guess in guesses])
    good = np.isfinite(values) & (values > 0.0)
    errors = np.abs(values[good] / truth - 1.0)
    known = [guess for guess in guesses if isfinite(guess.value) and isfinite(guess.low)]
    held = [guess.low <= case.truth[-1 - guess.behind] <= guess.high for guess in known]
    widths = [(g.high - g.low) / g.value for g in guesses if isfinite(g.low) and g.value > 0.0]
    return {
        "benchmark": "noise_scale_accuracy",
        "case": case.name,
        "directions": case.directions,
        "steps": len(case.truth),
        "seeds": len(guesses),
        "arm": arm,
        "error_median": _digits(np.median(errors)) if good.any() else None,
        "error_95": _digits(np.quantile(errors, 0.95)) if good.any() else None,
        "no_value": _digits(1.0 - good.mean()),
        "covered": _digits(np.mean(held)) if held else None,
        "width_median": _digits(np.median(widths)) if widths else None,
    }


def _digits(value: float) -> float | None:
    return float(f"{value:.3g}") if isfinite(value) else None


if __name__ == "__main__":
    main()
