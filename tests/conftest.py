"""What all tests share: real data or a clear skip, fixed seeds, one thread, no stray settings."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY.parent / "shared" / "data"

# Before torch or mlflow are imported, here and in every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["DO_NOT_TRACK"] = "true"
for name in ("MLFLOW_TRACKING_URI", "WB_WORKSPACE", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
    os.environ.pop(name, None)

# The same cases each time; `--hypothesis-profile explore` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data; the test skips where there is none."""
    if not DATA.is_dir():
        pytest.skip("no folder ../shared/data beside the repository")
    return DATA


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout; the test skips when it runs against a wheel outside of one."""
    if not (REPOSITORY / "workbench" / "__init__.py").is_file():
        pytest.skip("not in a checkout")
    return REPOSITORY


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A real browser: the page's document after its scripts have run, at a width in pixels."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None and os.environ.get("CI") == "true":
        pytest.fail("no chromium, and .ci/run should have installed it")
    if program is None:
        pytest.skip("no chromium to look at pages with")
    profile = tmp_path_factory.mktemp("browser")

    def document(address: str, *, width: int = 1200, wait_ms: int = 1000) -> str:
        quiet = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
        ]
        done = subprocess.run(
            [
                program, *quiet, f"--user-data-dir={profile}", f"--window-size={width},1600",
                f"--virtual-time-budget={wait_ms}", "--dump-dom", address,
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return done.stdout

    return document


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Seed every generator that has been imported."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave campaigns out unless they are asked for; skip GPU tests where there is none."""
    if "campaign" not in config.option.markexpr:
        campaigns = [item for item in items if item.get_closest_marker("campaign")]
        items[:] = [item for item in items if item not in set(campaigns)]
        config.hook.pytest_deselected(items=campaigns)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a data test into a failure where the data is."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and item.get_closest_marker("data") and DATA.is_dir():
        report.outcome = "failed"
        report.longrepr = f"skipped although {DATA} exists: {report.longrepr}"
    return report
