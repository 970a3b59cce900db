"""The README's code runs, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import torch

from workbench import Keep, SetBatchSize, View
from workbench.signal import Signal, Signals

LARGEST_PICTURE = 300_000  # bytes


@pytest.fixture
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def _block(readme: str, holding: str) -> CodeType:
    """Return the one block that holds this, compiled without this file's ``__future__``."""
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    (found,) = [block for block in blocks if holding in block]
    return compile(found, "README.md", "exec", dont_inherit=True)


def test_the_two_lines_train_a_model_and_show_each_sample_once(readme: str) -> None:
    model = torch.nn.Linear(4, 1)
    names: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
        "dataset": torch.utils.data.TensorDataset(torch.randn(131, 4), torch.randn(131, 1)),
        "loss_fn": torch.nn.MSELoss(),
    }
    before = model.weight.detach().clone()
    exec(_block(readme, "attach("), names)
    assert names["job"].samples == 10 * 131
    assert not torch.equal(model.weight, before)


def test_the_policy_acts_only_when_the_whole_interval_is_above_the_batch(readme: str) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    exec(_block(readme, "def decide("), names)
    policy = names["GrowWithNoise"](max_batch_size=512)

    def view(low: float) -> View:
        noise = Signal(name="noise_scale", value=800.0, low=low, high=1010.0, unit="samples")
        return View(
            step=9,
            epoch=0,
            samples=576,
            workers=1,
            batch_size_global=64,
            signals=Signals.of([noise]),
        )

    decision = policy.decide(view(low=640.0))
    assert isinstance(decision, SetBatchSize)
    assert decision.batch_size_global == 512
    assert decision.because[0].name == "noise_scale"
    assert isinstance(policy.decide(view(low=60.0)), Keep)


def test_what_it_links_to_exists_and_pictures_are_small(readme: str, repository: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", readme)
    near = [target for target in targets if "://" not in target]
    assert near
    for target in near:
        assert (repository / target).exists(), target
    for picture in (repository / "docs" / "images").iterdir():
        assert picture.stat().st_size < LARGEST_PICTURE, picture


def test_every_make_target_it_names_exists(readme: str, repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z]+)", readme))
    assert {"quickstart", "test", "docs"} <= named
    assert named <= set(re.findall(r"(?m)^([a-z-]+):", makefile))
