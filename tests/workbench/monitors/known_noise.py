"""Runs whose noise scale is known, drawn fast: norms for many seeds at once, and windows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.monitors.estimate import estimate
from workbench.monitors.window import Block, Window, push

Array = NDArray[np.float64]
Spectrum = Sequence[tuple[float, int]]

FLAT: Spectrum = [(1.0, 64)]
FEW: Spectrum = [(20.0, 3), (0.05, 61)]  # d_eff 3.3: three directions hold nearly all variance
POWER: Spectrum = [(j**-1.5, 1) for j in range(1, 65)]


@dataclass(frozen=True)
class Runs:
    """``S_hat`` and ``|G|^2_hat`` of many seeded runs, ``[seed, step]``, and the truth of each step."""

    noise: Array
    signal: Array
    truth: Array


@dataclass(frozen=True)
class Outcome:
    """What became of the last signal of each run; shares of 1, quantiles relative to the truth."""

    determined: float
    covered: float
    wrong: float
    bounded: float
    width: float
    error: float
    error95: float
    within5: float


def parts(small: Array, big: Array, batch: int, k: int) -> tuple[Array, Array]:
    """The unbiased parts of each step, as the monitor takes them from the two norms."""
    noise = batch * (small - big) / (k - 1)
    return noise, big - noise / batch


def gauss(
    seeds: int, truth: Array, spectrum: Spectrum, *, batch: int, k: int, seed: int = 1
) -> Runs:
    """Gaussian gradients, diagonal Sigma of trace 1 with ``(eigenvalue, how often)``; the mean has
    the length that ``truth`` asks for, the same in all coordinates. Norms are chi-squares."""
    rng = np.random.default_rng(seed)
    whole = sum(value * times for value, times in spectrum)
    dim = sum(times for _, times in spectrum)
    shape = (seeds, len(truth))
    noise, big = np.zeros(shape), np.zeros(shape)
    for value, times in spectrum:
        part = value / whole
        noise += part / (k - 1) * rng.chisquare(times * (k - 1), shape)
        centre = np.broadcast_to(times / dim / truth * batch / part, shape)
        big += part / batch * rng.noncentral_chisquare(times, centre)
    return Runs(noise, big - noise / batch, np.broadcast_to(truth, shape))


def tails(seeds: int, steps: int, scale: float, *, batch: int, k: int, degrees: float) -> Runs:
    """Student's noise with ``degrees`` of freedom on whole gradient vectors of 64 coordinates."""
    rng = np.random.default_rng(2)
    mean = np.sqrt(1.0 / scale / 64)
    noise, signal = np.empty((seeds, steps)), np.empty((seeds, steps))
    for i in range(seeds):
        z = rng.standard_normal((steps, k, 64)) * np.sqrt(k / batch / 64)
        z *= np.sqrt((degrees - 2) / rng.chisquare(degrees, (steps, k, 1)))
        noise[i], signal[i] = parts(*norms(mean + z), batch, k)
    return Runs(noise, signal, np.full((seeds, steps), scale))


def norms(gradients: Array) -> tuple[Array, Array]:
    """Squared norms at both batch sizes from ``gradients[..., k, d]`` of equal small batches."""
    return (gradients**2).sum(-1).mean(-1), (gradients.mean(-2) ** 2).sum(-1)


def linear_regression(
    seeds: int, steps: int, *, dim: int, batch: int, k: int, noise: float, start: float, rate: float
) -> Runs:
    """Loss ``(x.delta - e)^2 / 2``, ``x ~ N(0, I)``; SGD moves delta unless ``rate`` is 0."""
    rng = np.random.default_rng(3)
    delta = rng.standard_normal((seeds, dim))
    delta *= start / np.linalg.norm(delta, axis=1, keepdims=True)
    found, signal, truth = (np.empty((seeds, steps)) for _ in range(3))
    for step in range(steps):
        square = (delta**2).sum(1)
        truth[:, step] = (dim * (square + noise**2) + square) / square
        x = rng.standard_normal((seeds, k, batch // k, dim))
        error = noise * rng.standard_normal((seeds, k, batch // k))
        residual = (x @ delta[:, None, :, None])[..., 0] - error
        gradients = (residual[..., None] * x).mean(2)
        found[:, step], signal[:, step] = parts(*norms(gradients), batch, k)
        delta = delta - rate * gradients.mean(1)
    return Runs(found, signal, truth)


def logistic(seeds: int, steps: int, *, batch: int, k: int) -> Runs:
    """Logistic regression on 400 rows, drawn with replacement; the truth by full enumeration."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((400, 12))
    y = (rng.random(400) < 1 / (1 + np.exp(-x @ rng.standard_normal(12)))).astype(float)
    w = rng.standard_normal(12)
    per_sample = (1 / (1 + np.exp(-x @ w)) - y)[:, None] * x
    mean = per_sample.mean(0)
    truth = float(((per_sample - mean) ** 2).sum(1).mean() / (mean**2).sum())
    noise, signal = np.empty((seeds, steps)), np.empty((seeds, steps))
    for i in range(seeds):
        rows = rng.integers(0, 400, (steps, k, batch // k))
        noise[i], signal[i] = parts(*norms(per_sample[rows].mean(2)), batch, k)
    return Runs(noise, signal, np.full((seeds, steps), truth))


def windows(x: Array, y: Array) -> list[Window]:
    """The windows after all steps of each run, all weights 1: as ``push`` fills them, but at once."""
    pattern = Window()
    for _ in range(x.shape[1]):
        pattern = push(pattern, 1.0, 0.0, 0.0)
    sizes = [int(block[0]) for block in pattern.blocks]
    starts = np.cumsum([0, *sizes[:-1]])
    dx, dy = np.diff(x, axis=1), np.diff(y, axis=1)
    columns = [x, y]
    for square in (dx * dx / 2, dx * dy / 2, dy * dy / 2):
        columns.append(np.concatenate([square[:, :1], square], axis=1))  # the first counts for two
    sums = np.stack([np.add.reduceat(each, starts, axis=1) for each in columns], axis=2).tolist()
    made = []
    for i, row in enumerate(sums):
        blocks: list[Block] = [
            (float(n), float(n), a, b, c, d, e)
            for n, (a, b, c, d, e) in zip(sizes, row, strict=True)
        ]
        last = (1.0, float(x[i, -1]), float(y[i, -1]))
        made.append(Window(tuple(blocks), x.shape[1], last))
    return made


def judged(runs: Runs, *, level: float = 0.95) -> Outcome:
    """Estimate at the end of each run; judge by the last truth."""
    found = [estimate(each, level=level) for each in windows(runs.noise, runs.signal)]
    value, low, high = np.array([(each.value, each.low, each.high) for each in found]).T
    return outcome(value, np.maximum(low, 0.0), high, runs.truth[:, -1])


def outcome(value: Array, low: Array, high: Array, truth: Array) -> Outcome:
    """Summarise; a value that is NaN is undetermined."""
    known = ~np.isnan(value)
    inside = (low <= truth) & (truth <= high)
    if not known.any():
        return Outcome(0.0, np.nan, 0.0, 0.0, np.inf, np.nan, np.nan, 0.0)
    error = np.abs(value / truth - 1)[known]
    return Outcome(
        determined=float(known.mean()),
        covered=float(inside[known].mean()),
        wrong=float((known & ~inside).mean()),
        bounded=float(np.isfinite(high[known]).mean()),
        width=float(np.median((high - low)[known] / value[known])),
        error=float(np.median(error)),
        error95=float(np.quantile(error, 0.95)),
        within5=float((error < 0.05).mean()),
    )
