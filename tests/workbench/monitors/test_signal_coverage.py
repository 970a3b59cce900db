"""The intervals of the signals against gradients whose truth is known: does 95 % mean 95 %?

``pytest -m campaign -s`` on this file prints the coverage that the pages of the monitors quote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from workbench.facts import StepFacts, Successive
from workbench.monitors import build_monitor
from workbench.monitors.protocol import Monitor

Array = NDArray[np.float64]
RATE, LOSS, BASE = 0.1, 1.0, 8


@dataclass(frozen=True)
class Case:
    """A mean gradient with flat entries, a diagonal covariance, and the batch that sees them."""

    spectrum: Array
    noise_scale: float
    batch: int
    k: int

    @property
    def mean(self) -> Array:
        size = len(self.spectrum)
        return np.full(size, np.sqrt(self.spectrum.sum() / self.noise_scale / size))

    def truth(self, name: str) -> float:
        """The value that the interval of the monitor ``name`` should hold."""
        total, square = float(self.spectrum.sum()), float((self.mean**2).sum())
        ratio = 1.0 / self.noise_scale
        small = self.batch / self.k
        if name == "gradient_cosine_steps":
            rng = np.random.default_rng(9)
            z = rng.standard_normal((100_000, len(self.spectrum)))
            lengths = np.linalg.norm(self.mean + z * np.sqrt(self.spectrum / self.batch), axis=1)
            return float(square / lengths.mean() ** 2)
        gain = (1 / BASE + ratio) / (1 / self.batch + ratio)
        return {
            "gradient_snr": self.batch * ratio,
            "gradient_cosine_workers": small * ratio / (1 + small * ratio),
            "norm_test": self.noise_scale,
            "inner_product_test": float((self.mean**2 * self.spectrum).sum()) / square**2,
            "cabs": RATE * total / LOSS,
            "adascale_gain": gain,
            "statistical_efficiency": gain * BASE / self.batch,
        }[name]


OPTIONS: dict[str, dict[str, Any]] = {
    "inner_product_test": {"theta": 1.0},
    "adascale_gain": {"base_batch_size": BASE},
    "statistical_efficiency": {"base_batch_size": BASE},
}

FLAT = np.ones(64)
FEW = np.r_[np.full(3, 20.0), np.full(61, 0.05)]
POWER = np.arange(1, 65.0) ** -1.5

CASES = {
    "flat, R/B=1/4, k=2": Case(FLAT, 8.0, 32, 2),
    "flat, R/B=3, k=4": Case(FLAT, 100.0, 32, 4),
    "flat, R/B=1, k=32": Case(FLAT, 32.0, 32, 32),
    "few large, R/B=1/4, k=4": Case(FEW, 8.0, 32, 4),
    "power law, R/B=1, k=16": Case(POWER, 32.0, 32, 16),
}


def run_of(case: Case, steps: int, rng: np.random.Generator) -> list[StepFacts]:
    """Facts of one run on unmoved weights, as an adaptor makes them from the gradients."""
    z = rng.standard_normal((steps, case.k, len(case.spectrum)))
    gradients = case.mean + z * np.sqrt(case.spectrum * case.k / case.batch)
    loss = LOSS * (1.0 + rng.standard_normal(steps) / np.sqrt(case.batch))
    return facts_from(gradients, case.batch, loss)


def facts_from(gradients: Array, batch: int, loss: Array | None = None) -> list[StepFacts]:
    """Facts from ``gradients[step, k, d]`` of equal small batches."""
    steps, k, _ = gradients.shape
    losses = np.full(steps, LOSS) if loss is None else loss
    mean = gradients.mean(1)
    small, big = (gradients**2).sum(-1).mean(-1), (mean**2).sum(-1)
    products = (gradients * mean[:, None]).sum(-1) - big[:, None]
    along = batch / k * (products**2).sum(1) / (k - 1)
    dots = np.r_[0.0, (mean[1:] * mean[:-1]).sum(-1)]
    rows = zip(small.tolist(), big.tolist(), along.tolist(), dots.tolist(), strict=True)
    facts, before = [], 0.0
    for step, (one, whole, variance, dot) in enumerate(rows, start=1):
        pair = Successive(dot=dot, sqnorm=whole, sqnorm_before=before, batch_size_before=batch)
        facts.append(
            StepFacts(
                step=step,
                epoch=0,
                samples=step * batch,
                seconds=0.1,
                workers=k,
                batch_size_global=batch,
                batch_size_target=batch,
                small_batches=k,
                grad_sqnorm_small=one,
                grad_sqnorm_big=whole,
                loss=float(losses[step - 1]),
                learning_rate=RATE,
                origin="ranks",
                grad_dot_variance=variance,
                successive=pair if step > 1 else None,
            )
        )
        before = whole
    return facts


def last_of(monitor: Monitor, run: list[StepFacts]) -> tuple[float, float, float]:
    state = monitor.init()
    signal = None
    for facts in run:
        state, signal = monitor.update(state, facts)
    assert signal is not None
    return signal.value, signal.low, signal.high


def coverage(name: str, case: Case, seeds: int, steps: int) -> tuple[float, float, float]:
    """Return how many runs have a value, how many of these hold the truth, the median error."""
    rng = np.random.default_rng(2)
    monitor = build_monitor(name, OPTIONS.get(name))
    truth = case.truth(name)
    ends = [last_of(monitor, run_of(case, steps, rng)) for _ in range(seeds)]
    value, low, high = np.array(ends).T
    known = ~np.isnan(value)
    inside = (low <= truth * (1 + 1e-9)) & (truth * (1 - 1e-9) <= high)
    error = float(np.median(np.abs(value[known] / truth - 1)))
    return float(known.mean()), float(inside[known].mean()), error


ESTIMATES = (
    "gradient_snr", "norm_test", "inner_product_test", "cabs", "gradient_cosine_steps",
)  # fmt: skip


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_truth_is_inside_the_interval_in_most_runs(name: str) -> None:
    known, inside, error = coverage(name, CASES["flat, R/B=3, k=4"], 60, 96)
    assert known > 0.95
    assert inside >= 0.85
    assert error < (0.7 if name == "inner_product_test" else 0.2)


@pytest.mark.parametrize(
    "name", ["gradient_cosine_workers", "adascale_gain", "statistical_efficiency"]
)
def test_what_follows_from_the_signal_to_noise_ratio_is_right_as_often_as_that(name: str) -> None:
    case = CASES["flat, R/B=1/4, k=2"]
    assert coverage(name, case, 40, 64)[:2] == coverage("gradient_snr", case, 40, 64)[:2]


def test_the_ratio_of_a_gradient_lost_in_noise_is_bounded_above() -> None:
    case = Case(FLAT, 5000.0, 32, 4)
    rng = np.random.default_rng(3)
    ends = [last_of(build_monitor("gradient_snr"), run_of(case, 96, rng)) for _ in range(40)]
    low, high = np.array(ends).T[1:]
    truth = case.truth("gradient_snr")
    assert np.mean((low <= truth) & (truth <= high)) >= 0.9
    assert np.median(high) < 0.2


@pytest.mark.campaign
@pytest.mark.parametrize("steps", [64, 256])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ESTIMATES)
def test_campaign_95_percent_means_95_percent(name: str, case: str, steps: int) -> None:
    known, inside, error = coverage(name, CASES[case], 600, steps)
    print(f"\n| {name} | {case} | {steps} | {known:.0%} | {inside:.1%} | {error:.1%} |")
    assert known > 0.98
    assert inside >= 0.925
    # 600 runs tell a share of 95 % to 0.9 % (one standard error). The interval of the inner-product
    # test allows for tails that these Gaussian cases do not have.
    assert inside <= 0.975 or name == "inner_product_test"


@pytest.mark.parametrize("tail", [2.5, 4.0])
def test_heavy_tails_leave_the_truth_of_the_inner_product_test_inside(tail: float) -> None:
    """Samples scaled by a Pareto factor: few of them carry most of the noise."""
    rng = np.random.default_rng(4)
    monitor = build_monitor("inner_product_test", {"theta": 1.0})
    spread = tail / (tail - 2.0)  # the mean of the squared factor
    mean = np.full(16, 0.5)
    truth = float((mean**2).sum() * spread) / float((mean**2).sum()) ** 2
    inside = []
    for _ in range(40):
        factor = rng.pareto(tail, (120, 4, 8, 1)) + 1.0
        samples = mean + factor * rng.standard_normal((120, 4, 8, 16))
        _, low, high = last_of(monitor, facts_from(samples.mean(2), 32))
        inside.append(low <= truth <= high)
    assert np.mean(inside) >= 0.9
