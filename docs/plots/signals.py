"""Draw the signals of a small run beside the truth, from enumeration of all samples.

Run from the root of the repository: ``python docs/plots/signals.py``; about half a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import matplotlib as mpl
from small_run import LAYERS, RATE, Truth, batch_size, small_run

from workbench.facts import StepFacts
from workbench.monitors import build_monitor
from workbench.monitors.protocol import Monitor
from workbench.signal import Signal

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "signals"
mpl.rcParams["svg.fonttype"] = "none"
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

IMAGES = Path(__file__).resolve().parents[1] / "images"
BLUE, ORANGE, GREEN, BLACK = "#2b6cb0", "#c05621", "#2f855a", "#1a202c"
BASE = 32
EVERY = 4


def signals(monitor: Monitor, facts: Sequence[StepFacts]) -> list[Signal]:
    """Return the signal after each step."""
    state, found = monitor.init(), []
    for step in facts:
        state, signal = monitor.update(state, step)
        found.append(signal)
    return found


def band(axes: Axes, found: Sequence[Signal], colour: str, label: str) -> None:
    """Draw values and intervals against steps."""
    steps = list(range(1, len(found) + 1))[::EVERY]
    thin = found[::EVERY]
    top = max(signal.value for signal in thin if signal.determined) * 1e4
    highs = [min(signal.high, top) if signal.high < inf else top for signal in thin]
    axes.fill_between(
        steps, [s.low for s in thin], highs, color=colour, alpha=0.2, linewidth=0, step="post"
    )
    axes.step(steps, [s.value for s in thin], color=colour, where="post", label=label)


def dots(
    axes: Axes, truths: Sequence[Truth], function: Callable[[Truth], float], label: str = "truth"
) -> None:
    """Draw what enumeration says."""
    axes.plot(
        [truth.step for truth in truths],
        [function(truth) for truth in truths],
        ".",
        color=BLACK,
        label=label,
    )


def frame(title: str, panels: int = 1) -> tuple[plt.Figure, list[Axes]]:
    """Return an empty picture with ``panels`` side by side."""
    figure, grid = plt.subplots(1, panels, figsize=(4.4 * panels + 1.6, 3.2), squeeze=False)
    for axes in grid[0]:
        axes.axvline(400, color="0.75", linewidth=1, linestyle=":")
        axes.set_xlabel("step (batch 64, from step 401 on 256)")
        axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel(title)
    return figure, list(grid[0])


def save(figure: plt.Figure, name: str, **legend: Any) -> None:
    """Write the picture, the same bytes for the same numbers."""
    for axes in figure.axes:
        axes.legend(frameon=False, fontsize=8, **legend)
    figure.tight_layout()
    figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None}, facecolor="white")
    plt.close(figure)


def ratio(truth: Truth) -> float:
    """Return one sample's signal-to-noise ratio."""
    return truth.length / truth.noise


def gain(truth: Truth) -> float:
    """Return AdaScale's gain over the base batch size."""
    return (1 / BASE + ratio(truth)) / (1 / batch_size(truth.step) + ratio(truth))


def cosine(truth: Truth) -> float:
    """Return the mean cosine between small batches."""
    mean = batch_size(truth.step) / 8 * ratio(truth)
    return mean / (1.0 + mean)


def unmoved(truth: Truth) -> float:
    """Return the cosine between steps if the weights did not move."""
    whole = batch_size(truth.step) * ratio(truth)
    return whole / (1.0 + whole)


def draw(facts: list[StepFacts], truths: list[Truth]) -> None:
    """Draw one picture a page."""
    figure, (axes,) = frame("gradient_snr")
    band(axes, signals(build_monitor("gradient_snr"), facts), BLUE, "signal, 95 %")
    dots(axes, truths, lambda truth: batch_size(truth.step) * ratio(truth))
    axes.set_yscale("log")
    save(figure, "gradient_snr")

    figure, (left, right) = frame("cosine", 2)
    found = signals(build_monitor("gradient_cosine_workers"), facts)
    band(left, found, BLUE, "gradient_cosine_workers, 95 %")
    dots(left, truths, cosine)
    found = signals(build_monitor("gradient_cosine_steps"), facts)
    band(right, found, ORANGE, "gradient_cosine_steps, 95 %")
    dots(right, truths, unmoved, "on unmoved weights, 1 / (1 + R/B)")
    save(figure, "gradient_cosine")

    figure, (left, right) = frame("samples", 2)
    band(left, signals(build_monitor("norm_test"), facts), BLUE, "norm_test, θ = 1, 95 %")
    dots(left, truths, lambda truth: 1.0 / ratio(truth))
    found = signals(build_monitor("inner_product_test", {"theta": 1.0}), facts)
    band(right, found, ORANGE, "inner_product_test, θ = 1, 95 %")
    dots(right, truths, lambda truth: truth.along / truth.length**2)
    for axes in (left, right):
        axes.set_yscale("log")
    left.set_ylim(10, 10_000)
    right.set_ylim(0.03, 10_000)
    save(figure, "norm_test", loc="upper left")

    figure, (axes,) = frame("samples")
    band(axes, signals(build_monitor("cabs"), facts), BLUE, "cabs, 95 %")
    dots(axes, truths, lambda truth: RATE * truth.noise / truth.loss)
    save(figure, "cabs")

    figure, (left, right) = frame("", 2)
    options = {"base_batch_size": BASE}
    found = signals(build_monitor("adascale_gain", options), facts)
    band(left, found, BLUE, "adascale_gain, 95 %")
    dots(left, truths, gain)
    found = signals(build_monitor("statistical_efficiency", options), facts)
    band(right, found, ORANGE, "statistical_efficiency, 95 %")
    dots(right, truths, lambda truth: gain(truth) * BASE / batch_size(truth.step))
    save(figure, "batch_gain")

    for name, title in (("update_ratio", "update_ratio"), ("gradient_norm", "loss / weight")):
        figure, (axes,) = frame(title)
        for layer, colour in zip(LAYERS, (BLUE, ORANGE), strict=True):
            found = signals(build_monitor(name, {"group": layer}), facts)
            values = [signal.value for signal in found]
            axes.plot(range(1, 801), values, color=colour, linewidth=0.6, label=f"{name}.{layer}")
        if name == "gradient_norm":
            found = signals(build_monitor(name), facts)
            values = [signal.value for signal in found]
            axes.plot(range(1, 801), values, color=GREEN, linewidth=0.6, label=name)
            axes.plot(
                [truth.step for truth in truths],
                [truth.length**0.5 for truth in truths],
                ".",
                color=BLACK,
                label="norm of the true gradient",
            )
        axes.set_yscale("log")
        save(figure, name)


if __name__ == "__main__":
    draw(*small_run())
