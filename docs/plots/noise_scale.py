"""Draw the noise scale on a moving target beside fixed averages, and its parts in a small run.

Run from the root of the repository: ``python docs/plots/noise_scale.py``; about half a minute.
"""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from signals import BLACK, BLUE, GREEN, ORANGE, band, dots, frame, save, signals
from small_run import small_run

from workbench.facts import StepFacts
from workbench.monitors import build_monitor

Array = NDArray[np.float64]
BATCH, K, DIRECTIONS = 64, 4, 1_000


def target() -> Array:
    """Return a noise scale that rests, grows ten times in 300 steps, rests, and falls at once."""
    grown = np.concatenate([np.full(300, 0.4), np.geomspace(0.4, 4.0, 300), np.full(200, 4.0)])
    truth: Array = BATCH * np.concatenate([grown, np.full(200, 1.0)])
    return truth


def drawn(truth: Array) -> list[StepFacts]:
    """Return steps with Gaussian gradients of ``DIRECTIONS`` coordinates, drawn as chi-squares."""
    rng = np.random.default_rng(7)
    noise = rng.chisquare(DIRECTIONS * (K - 1), len(truth)) / DIRECTIONS / BATCH
    big = rng.noncentral_chisquare(DIRECTIONS, BATCH * DIRECTIONS / truth) / (BATCH * DIRECTIONS)
    pairs = zip(noise.tolist(), big.tolist(), strict=True)
    return [
        StepFacts(
            step=step,
            epoch=0,
            samples=BATCH * step,
            seconds=0.1,
            workers=K,
            batch_size_global=BATCH,
            batch_size_target=BATCH,
            small_batches=K,
            grad_sqnorm_small=one + other,
            grad_sqnorm_big=other,
            origin="ranks",
        )
        for step, (one, other) in enumerate(pairs, start=1)
    ]


def fading(facts: list[StepFacts], rate: float) -> list[float]:
    """Return the ratio of averages with weights ``rate^age`` after each step."""
    found, noise, signal = [], 0.0, 0.0
    for step in facts:
        norms = step.norms
        if norms is not None:
            one = BATCH * (norms.small - norms.big) / (K - 1)
            noise = rate * noise + one
            signal = rate * signal + norms.big - one / BATCH
        found.append(noise / signal if signal > 0.0 else float("nan"))
    return found


def tracking() -> None:
    """Draw what each way of averaging makes of the same numbers."""
    truth = target()
    facts = drawn(truth)
    figure, axes = plt.subplots(figsize=(8.0, 3.6))
    axes.spines[["top", "right"]].set_visible(False)
    band(axes, signals(build_monitor("noise_scale"), facts), BLUE, "noise_scale, 95 %")
    steps = range(1, len(truth) + 1)
    axes.plot(steps, fading(facts, 0.99), color=ORANGE, linewidth=0.8, label="average, rate 0.99")
    axes.plot(steps, fading(facts, 1.0), color=GREEN, linewidth=0.8, label="sums over all steps")
    axes.plot(steps, truth, color=BLACK, linewidth=0.8, linestyle="--", label="truth")
    axes.set_yscale("log")
    axes.set_ylim(12, 1500)
    axes.set_xlabel("step (batch 64)")
    axes.set_ylabel("samples")
    save(figure, "noise_scale", loc="upper left")


def parts() -> None:
    """Draw the gradient variance and the smoothed loss of the small run, beside the truth."""
    facts, truths = small_run()
    figure, (axes,) = frame("(loss / weight)²")
    band(axes, signals(build_monitor("gradient_variance"), facts), BLUE, "gradient_variance, 95 %")
    dots(axes, truths, lambda truth: truth.noise)
    save(figure, "gradient_variance")
    figure, (axes,) = frame("loss")
    band(axes, signals(build_monitor("loss_smoothed"), facts), BLUE, "loss_smoothed, 95 %")
    dots(axes, truths, lambda truth: truth.loss)
    axes.set_yscale("log")
    save(figure, "loss_smoothed")


if __name__ == "__main__":
    tracking()
    parts()
