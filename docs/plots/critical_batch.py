"""Compare the noise scale with the critical batch that branches find, along one training.

Run from the root of the repository: ``python docs/plots/critical_batch.py``; some minutes on one core.
Prints the table of the page and draws its picture.
"""

from __future__ import annotations

from math import isinf
from pathlib import Path

import matplotlib as mpl
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import TensorDataset

from workbench.adaptors.torch import attach
from workbench.adaptors.torch.probes import CriticalBatch, critical_batch
from workbench.monitors import NoiseScale
from workbench.signal import Signal

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "critical batch"
from matplotlib import pyplot as plt  # noqa: E402

IMAGE = Path(__file__).resolve().parents[1] / "images" / "critical_batch.svg"
BATCH, PROBES, MULTIPLES = 8, (0, 40, 150, 620, 1900), (2, 4, 8, 16, 32)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Return training and held-out samples: one in ten labels of training is wrong."""
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32) / 16.0, torch.tensor(labels)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(inputs), generator=generator)
    inputs, targets = inputs[order], targets[order]
    wrong = torch.rand(1280, generator=generator) < 0.1
    noisy = torch.where(wrong, torch.randint(0, 10, (1280,), generator=generator), targets[:1280])
    return TensorDataset(inputs[:1280], noisy), TensorDataset(inputs[1280:], targets[1280:])


def measured(
    rule: str, make: type[torch.optim.Optimizer], rate: float
) -> list[tuple[int, Signal, CriticalBatch]]:
    """Train, and at some steps ask both the monitor and the probe."""
    train, held_out = digits()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = make(model.parameters(), lr=rate)
    job = attach(
        model, optimizer, train, batch_size=BATCH, monitors=[NoiseScale()], measure_every=1
    )
    found = []

    def probe() -> None:
        found.append(
            (
                job.step,
                job.signals.get("noise_scale"),
                critical_batch(
                    model,
                    optimizer,
                    train,
                    F.cross_entropy,
                    batch_size=BATCH,
                    held_out=held_out,
                    multiples=MULTIPLES,
                    samples=1280,
                    repeats=8,
                    tolerance=0.02,
                    learning_rate_rule=rule,
                    micro_batch_size=256,
                ),
            )
        )

    probe()
    for epoch in job.epochs(100):
        for inputs, targets in epoch:
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            if job.step in PROBES[1:] and job.step not in [step for step, *_ in found]:
                job.flush()
                probe()
            if job.step >= PROBES[-1]:
                break
        if job.step >= PROBES[-1]:
            break
    job.close()
    return found


def line(step: int, noise: Signal | None, direct: CriticalBatch) -> str:
    """Return one line of the table."""
    scale = (
        "undetermined"
        if noise is None or not noise.determined
        else (
            f"{noise.value:.0f} [{noise.low:.0f}, {'∞' if isinf(noise.high) else f'{noise.high:.0f}'}]"
        )
    )
    losses = " ".join(f"{c.difference:+.3f}" for c in direct.comparisons)
    control = sum(direct.control_losses) / len(direct.control_losses)
    return (
        f"| {step} | {direct.start_loss:.3f} → {control:.3f} | {scale} | {direct.verdict} | "
        f"{direct.signal().value:.0f} | {losses} |"
    )


def draw(runs: dict[str, list[tuple[int, Signal, CriticalBatch]]]) -> None:
    """Write the picture."""
    figure, both = plt.subplots(1, 2, figsize=(9.0, 3.8), sharey=True, layout="constrained")
    top = BATCH * MULTIPLES[-1]
    for axes, (title, found) in zip(both, runs.items(), strict=True):
        for place, (_, noise, direct) in enumerate(found):
            signal = direct.signal()
            if signal.determined:
                end = 4 * top if isinf(signal.high) else signal.high
                axes.plot(
                    [place - 0.12] * 2,
                    [signal.low, end],
                    color="C0",
                    linewidth=5,
                    alpha=0.35,
                    solid_capstyle="butt",
                )
                axes.plot(place - 0.12, signal.value, "o", color="C0")
            if noise is not None and noise.determined:
                end = 4 * top if isinf(noise.high) else noise.high
                axes.plot(
                    [place + 0.12] * 2,
                    [max(noise.low, 0.5), end],
                    color="C1",
                    linewidth=5,
                    alpha=0.35,
                    solid_capstyle="butt",
                )
                axes.plot(place + 0.12, noise.value, "s", color="C1")
        axes.axhline(BATCH, color="0.6", linewidth=1, linestyle=":")
        axes.set(title=title, xlabel="step", yscale="log", ylim=(0.5, 4 * top))
        axes.set_yticks([1, 2, 4, 8, 16, 32, 64, 128, 256, 512], minor=False)
        axes.set_yticklabels(["1", "2", "4", "8", "16", "32", "64", "128", "256", "512"])
        axes.minorticks_off()
        axes.set_xticks(range(len(found)), [str(step) for step, *_ in found])
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("samples")
    both[0].plot([], [], "o", color="C0", label="critical batch, tried")
    both[0].plot([], [], "s", color="C1", label="noise scale")
    both[0].plot([], [], color="0.6", linestyle=":", label=f"batch size of the training, {BATCH}")
    both[0].legend(frameon=False, loc="lower left", fontsize=8)
    figure.savefig(IMAGE, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    torch.set_num_threads(1)
    runs = {
        "SGD, rate by k": measured("linear", torch.optim.SGD, 0.05),
        "Adam, rate by √k": measured("square_root", torch.optim.Adam, 0.002),
    }
    for title, found in runs.items():
        print(title)
        print(
            "| step | loss in a branch | noise scale | tried | value | differences at",
            *MULTIPLES,
            "|",
        )
        for row in found:
            print(line(*row))
    draw(runs)
