"""The noise scale against cases whose answer is known: is it inside its own interval?

The table of the documentation: ``pytest -m campaign -s`` on this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, isnan

import numpy as np
import pytest
from numpy.typing import NDArray

from workbench.facts import StepFacts
from workbench.monitors import NoiseScale

Array = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Runs:
    """Norms of many seeded runs, ``[seed, step]``, and the true noise scale of each step."""

    small: Array
    big: Array
    truth: Array
    batch: int
    k: int


@dataclass(frozen=True)
class Outcome:
    """What became of the last signal of each run."""

    determined: float
    covered: float
    bounded: float
    width: float
    error: float
    bad: int


def norms(gradients: Array) -> tuple[Array, Array]:
    """Squared norms at both batch sizes from ``gradients[..., k, d]`` of equal small batches."""
    return (gradients**2).sum(-1).mean(-1), (gradients.mean(-2) ** 2).sum(-1)


def linear_regression(
    seeds: int, steps: int, *, dim: int, batch: int, k: int, noise: float, start: float, rate: float
) -> Runs:
    """Case 1: loss (x.delta - e)^2 / 2, x ~ N(0, I); SGD moves delta unless ``rate`` is 0."""
    rng = np.random.default_rng(1)
    delta = rng.standard_normal((seeds, dim))
    delta *= start / np.linalg.norm(delta, axis=1, keepdims=True)
    small, big, truth = (np.empty((seeds, steps)) for _ in range(3))
    for step in range(steps):
        square = (delta**2).sum(1)
        truth[:, step] = (dim * (square + noise**2) + square) / square
        x = rng.standard_normal((seeds, k, batch // k, dim))
        error = noise * rng.standard_normal((seeds, k, batch // k))
        residual = (x @ delta[:, None, :, None])[..., 0] - error
        gradients = (residual[..., None] * x).mean(2)
        small[:, step], big[:, step] = norms(gradients)
        delta = delta - rate * gradients.mean(1)
    return Runs(small, big, truth, batch, k)


def quadratic(
    seeds: int, steps: int, *, spectrum: Array, scale: float, batch: int, k: int, tail: float = 0.0
) -> Runs:
    """Case 2: mean G and diagonal Sigma; ``tail``: Student's degrees of freedom, 0 for Gauss."""
    rng = np.random.default_rng(2)
    dim, total = len(spectrum), float(spectrum.sum())
    mean = np.full(dim, np.sqrt(total / scale / dim))
    small, big = np.empty((seeds, steps)), np.empty((seeds, steps))
    for seed in range(seeds):
        z = rng.standard_normal((steps, k, dim))
        if tail:
            z *= np.sqrt((tail - 2) / rng.chisquare(tail, (steps, k, 1)))
        small[seed], big[seed] = norms(mean + z * np.sqrt(spectrum * k / batch))
    return Runs(small, big, np.full((seeds, steps), scale), batch, k)


def logistic(seeds: int, steps: int, *, batch: int, k: int, reach: float) -> Runs:
    """Case 3: logistic regression on 400 rows, drawn with replacement; truth by enumeration."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, 12))
    y = (rng.random(400) < 1 / (1 + np.exp(-x @ rng.standard_normal(12)))).astype(float)
    w = reach * rng.standard_normal(12)
    per_sample = (1 / (1 + np.exp(-x @ w)) - y)[:, None] * x
    mean = per_sample.mean(0)
    truth = float(((per_sample - mean) ** 2).sum(1).mean() / (mean**2).sum())
    small, big = np.empty((seeds, steps)), np.empty((seeds, steps))
    for seed in range(seeds):
        rows = rng.integers(0, 400, (steps, k, batch // k))
        small[seed], big[seed] = norms(per_sample[rows].mean(2))
    return Runs(small, big, np.full((seeds, steps), truth), batch, k)


def drifting(seeds: int, truth: Array, *, dim: int, batch: int, k: int) -> Runs:
    """A flat Sigma of trace 1 and a mean that follows ``truth[step]``, drawn as chi-squares."""
    rng = np.random.default_rng(4)
    shape = (seeds, len(truth))
    noise = rng.chisquare(dim * (k - 1), shape) / (dim * (k - 1))
    big = rng.noncentral_chisquare(dim, batch * dim / truth, shape) / (batch * dim)
    return Runs(noise * (k - 1) / batch + big, big, np.broadcast_to(truth, shape), batch, k)


def play(runs: Runs, monitor: NoiseScale | None = None) -> Outcome:
    """Run the monitor over every run; judge the last signal by the last truth, and all of them."""
    used = monitor or NoiseScale(level=LEVEL)
    last, bad = [], 0
    for small, big in zip(runs.small.tolist(), runs.big.tolist(), strict=True):
        state = used.init()
        for step, (one, other) in enumerate(zip(small, big, strict=True), start=1):
            facts = StepFacts(
                step=step, epoch=0, samples=step * runs.batch, seconds=0.1, workers=runs.k,
                batch_size_global=runs.batch, batch_size_target=runs.batch,
                small_batches=runs.k, grad_sqnorm_small=one, grad_sqnorm_big=other,
                origin="ranks",
            )  # fmt: skip
            state, signal = used.update(state, facts)
            fine = isfinite(signal.value) and 0 <= signal.low <= signal.value <= signal.high
            bad += not ((fine and isfinite(signal.low)) or (isnan(signal.value) and signal.reason))
        last.append((signal.value, signal.low, signal.high))
    value, low, high = np.array(last).T
    known, truth = ~np.isnan(value), runs.truth[:, -1]
    if not known.any():
        return Outcome(0.0, float("nan"), 0.0, float("inf"), float("nan"), bad)
    inside = (low <= truth) & (truth <= high)
    return Outcome(
        determined=float(known.mean()),
        covered=float(inside[known].mean()),
        bounded=float(np.isfinite(high[known]).mean()),
        width=float(np.median((high - low)[known] / value[known])),
        error=float(np.median(np.abs(value / truth - 1)[known])),
        bad=bad,
    )


FLAT = np.ones(64)
FEW = np.r_[np.full(3, 20.0), np.full(61, 0.05)]  # d_eff 3.3
POWER = np.arange(1, 65.0) ** -1.5

CASES: dict[str, Callable[[int, int], Runs]] = {
    "1 linear regression, frozen": lambda seeds, steps: linear_regression(
        seeds, steps, dim=16, batch=16, k=4, noise=1.0, start=1.0, rate=0.0
    ),
    "1 linear regression, frozen, k=2": lambda seeds, steps: linear_regression(
        seeds, steps, dim=16, batch=16, k=2, noise=1.0, start=0.5, rate=0.0
    ),
    "1 linear regression, moving, rate 0.001": lambda seeds, steps: linear_regression(
        seeds, steps, dim=16, batch=16, k=4, noise=1.0, start=1.0, rate=0.001
    ),
    "1 linear regression, moving, rate 0.005": lambda seeds, steps: linear_regression(
        seeds, steps, dim=16, batch=16, k=4, noise=1.0, start=2.0, rate=0.005
    ),
    "2 quadratic, flat, R/B=1/4": lambda seeds, steps: quadratic(
        seeds, steps, spectrum=FLAT, scale=8.0, batch=32, k=2
    ),
    "2 quadratic, flat, R/B=3": lambda seeds, steps: quadratic(
        seeds, steps, spectrum=FLAT, scale=100.0, batch=32, k=4
    ),
    "2 quadratic, few large, R/B=3": lambda seeds, steps: quadratic(
        seeds, steps, spectrum=FEW, scale=100.0, batch=32, k=4
    ),
    "2 quadratic, power law, R/B=3": lambda seeds, steps: quadratic(
        seeds, steps, spectrum=POWER, scale=100.0, batch=32, k=4
    ),
    "2 quadratic, heavy tails t5, R/B=3": lambda seeds, steps: quadratic(
        seeds, steps, spectrum=FLAT, scale=100.0, batch=32, k=4, tail=5.0
    ),
    "3 logistic regression, far": lambda seeds, steps: logistic(
        seeds, steps, batch=16, k=4, reach=1.0
    ),
    "3 logistic regression, micro-batches of one": lambda seeds, steps: logistic(
        seeds, steps, batch=16, k=16, reach=1.0
    ),
}

HARD: dict[str, Callable[[int, int], Runs]] = {
    "2 quadratic, flat, R/B=30": lambda seeds, steps: quadratic(
        seeds, steps, spectrum=FLAT, scale=1000.0, batch=32, k=4
    ),
    "2 quadratic, few large, R/B=30": lambda seeds, steps: quadratic(
        seeds, steps, spectrum=FEW, scale=1000.0, batch=32, k=4
    ),
    "1 linear regression, moving, rate 0.02": lambda seeds, steps: linear_regression(
        seeds, steps, dim=16, batch=32, k=4, noise=0.5, start=2.0, rate=0.02
    ),
}


def row(name: str, seeds: int, steps: int, found: Outcome) -> str:
    return (
        f"| {name} | {steps} | {seeds} | {found.determined:.0%} | {found.covered:.1%} "
        f"| {found.bounded:.0%} | {found.width:.2f} | {found.error:.1%} |"
    )


@pytest.mark.parametrize("case", CASES)
def test_the_truth_is_inside_the_interval_in_nine_of_ten_runs(case: str) -> None:
    found = play(CASES[case](200, 128))
    print(row(case, 200, 128, found))
    assert found.bad == 0
    assert found.determined >= 0.95
    assert found.covered >= 0.90
    assert found.bounded >= 0.40


def test_a_gradient_lost_in_noise_gives_low_ends_that_hold_or_no_value() -> None:
    runs = quadratic(200, 64, spectrum=FLAT, scale=3000.0, batch=32, k=4)
    found = play(runs)
    assert found.bad == 0
    assert found.determined < 1.0
    assert found.covered >= 0.90


def test_zero_mean_gradient_has_an_infinite_noise_scale_that_no_interval_excludes() -> None:
    runs = drifting(200, np.full(64, 1e12), dim=64, batch=32, k=4)
    found = play(Runs(runs.small, runs.big, np.full((200, 64), np.inf), 32, 4))
    assert found.bad == 0
    assert found.determined < 0.7
    assert found.covered >= 0.90


def test_a_step_of_the_truth_is_followed_where_sums_and_a_fixed_average_are_not() -> None:
    truth = np.where(np.arange(600) < 400, 100.0, 2000.0)
    runs = drifting(60, truth, dim=10_000, batch=512, k=8)
    found = play(runs)
    assert found.covered >= 0.90
    assert found.error < 0.05
    sums, average = rivals(runs)
    assert sums > 0.5
    assert average > 0.5


def rivals(runs: Runs) -> tuple[float, float]:
    """Median error at the end of plain sums over all steps, and of averages with rate 0.99."""
    noise = runs.batch * (runs.small - runs.big) / (runs.k - 1)
    signal = runs.big - noise / runs.batch
    fading = 0.99 ** np.arange(runs.small.shape[1])[::-1]
    truth = runs.truth[:, -1]
    sums = np.abs(noise.sum(1) / signal.sum(1) / truth - 1)
    average = np.abs((noise * fading).sum(1) / (signal * fading).sum(1) / truth - 1)
    return float(np.median(sums)), float(np.median(average))


@pytest.mark.campaign
@pytest.mark.parametrize("steps", [16, 64, 512])
@pytest.mark.parametrize("case", [*CASES, *HARD])
def test_campaign_of_exact_cases(case: str, steps: int) -> None:
    found = play((CASES | HARD)[case](200, steps))
    print("\n" + row(case, 200, steps, found))
    assert found.bad == 0


@pytest.mark.campaign
@pytest.mark.parametrize("shape", ["constant", "exponential", "linear", "late", "doubling", "step"])
@pytest.mark.parametrize(("dim", "batch", "k"), [(2_000, 32, 4), (10_000, 512, 8)])
def test_campaign_of_moving_targets(shape: str, dim: int, batch: int, k: int) -> None:
    t = np.linspace(0, 1, 1000)
    truth = {
        "constant": np.full(1000, 500.0),
        "exponential": 100 * 114**t,
        "linear": 100 + 11_300 * t,
        "late": 100 * 114 ** np.clip(5 * t - 4, 0, 1),
        "doubling": 200 * 2**t,
        "step": np.where(t < 0.7, 100.0, 2000.0),
    }[shape]
    runs = drifting(60, truth, dim=dim, batch=batch, k=k)
    found = play(runs)
    sums, average = rivals(runs)
    name = f"{shape}, d_eff={dim}, B={batch}"
    print("\n" + row(name, 60, 1000, found) + f" {average:.1%} | {sums:.1%} |")
    assert found.bad == 0
