"""Draw sharpness rising to 2 / rate under gradient descent, and print what a product costs.

Run from the root of the repository: ``python docs/plots/sharpness.py``; about two minutes on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import matplotlib as mpl
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F  # noqa: N812

from workbench.adaptors.torch.probes import Sharpness, sharpness
from workbench.adaptors.torch.probes.hessian import Hessian
from workbench.adaptors.torch.probes.losses import step_from
from workbench.adaptors.torch.probes.random_state import own_random_numbers
from workbench.adaptors.torch.probes.stand_in import stand_in

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "sharpness"
from matplotlib import pyplot as plt  # noqa: E402

IMAGE = Path(__file__).resolve().parents[1] / "images" / "sharpness.svg"
RATES, STEPS, EVERY = (0.2, 0.3, 0.5), 3000, 60


def digits(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and one-hot targets."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images[:count], dtype=torch.float32) / 16.0
    return inputs - inputs.mean(0), F.one_hot(torch.tensor(labels[:count]), 10).float()


def network(width: int = 64) -> torch.nn.Module:
    """Return two hidden layers of tanh."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(64, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 10),
    )


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return half the squared distance, mean over samples."""
    return 0.5 * (outputs - targets).square().sum(1).mean()


def descent(rate: float) -> list[tuple[int, Sharpness]]:
    """Train by gradient descent on all samples at once; probe on the way."""
    model, data, found = network(), digits(), []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            found.append((step, sharpness(model, loss, [data])))
        model.zero_grad()
        loss(model(data[0]), data[1]).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= rate * parameter.grad
    return found


def draw() -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    for place, rate in enumerate(RATES):
        measured = [(s, one.value) for s, one in descent(rate) if one.signal().determined]
        last = [value for step, value in measured if step > 0.8 * STEPS]
        print(
            f"rate {rate}: 2 / rate = {2 / rate:g}, sharpness in the last fifth "
            f"{min(last):.1f} to {max(last):.1f}, {len(measured)} of {STEPS // EVERY + 1} determined"
        )
        axes.plot(*zip(*measured, strict=True), color=f"C{place}", marker=".", label=f"rate {rate}")
        axes.axhline(2.0 / rate, color=f"C{place}", linestyle="--", linewidth=1)
        axes.annotate(
            f"2 / {rate}",
            (STEPS, 2.0 / rate),
            xytext=(4, 4),
            color=f"C{place}",
            textcoords="offset points",
            ha="left",
            va="center",
            annotation_clip=False,
        )
    axes.set(xlabel="step of gradient descent", ylabel="sharpness", xlim=(0, STEPS), ylim=(0, None))
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    IMAGE.parent.mkdir(exist_ok=True)
    figure.savefig(IMAGE, metadata={"Date": None}, facecolor="white")


def seconds(call: Callable[[], object], repeats: int = 15) -> float:
    """Return the median CPU time of a call, which other processes hardly change."""
    call()
    taken = []
    for _ in range(repeats):
        before = time.process_time()
        call()
        taken.append(time.process_time() - before)
    return median(taken)


def cost(width: int, rows: int, batches: int) -> None:
    """Print the time of a forward pass, a backward pass and a product."""
    model, step = network(width), step_from(loss, None)
    data = [(torch.randn(rows, 64), torch.randn(rows, 10)) for _ in range(batches)]

    def forward() -> torch.Tensor:
        return torch.stack([loss(model(x), y) for x, y in data]).mean()

    ahead = seconds(forward)
    back = seconds(lambda: forward().backward()) - ahead
    with own_random_numbers(model) as seed_all, stand_in(model) as inside:
        hessian = Hessian(model, inside, step, data, seed_all=seed_all, seed=0)
        vector = torch.randn(hessian.length)
        product = seconds(lambda: hessian.product(vector))
    print(
        f"| {width} | {batches} x {rows} | {1e3 * ahead:.2f} | {1e3 * back:.2f} | "
        f"{1e3 * product:.2f} | {product / back:.1f} |"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw()
    print("| width | samples | forward, ms | backward, ms | product, ms | product / backward |")
    for size in ((256, 512, 1), (1024, 512, 1), (256, 512, 4), (1024, 512, 4)):
        cost(*size)
