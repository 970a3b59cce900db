"""Run checks in real processes that form one gloo group, once for all tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
Told = list[dict[str, Any]]


def run_ranks(workers: int, *checks: str) -> Told:
    """Return what each rank printed last, in order of rank."""
    with tempfile.TemporaryDirectory() as folder:
        started = [
            subprocess.Popen(
                [sys.executable, str(SCRIPTS / "checks.py"), f"{folder}/meet", *checks],
                env={
                    **os.environ,
                    "RANK": str(rank),
                    "WORLD_SIZE": str(workers),
                    "OMP_NUM_THREADS": "1",
                    "OMP_WAIT_POLICY": "PASSIVE",
                    "GLOO_SOCKET_IFNAME": "lo",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(workers)
        ]
        try:
            ended = [process.communicate(timeout=240) for process in started]
        finally:
            for process in started:
                process.kill()
    failed = [
        f"rank {rank}: {errors[-3000:]}"
        for rank, (process, (_, errors)) in enumerate(zip(started, ended, strict=True))
        if process.returncode != 0
    ]
    assert not failed, "\n".join(failed)
    return [json.loads(output.strip().splitlines()[-1]) for output, _ in ended]


@pytest.fixture(scope="package")
def ranks() -> Callable[..., Told]:
    """The same checks run once, however many tests ask about them."""
    done: dict[tuple[Any, ...], Told] = {}

    def run(workers: int, *checks: str) -> Told:
        key = (workers, *checks)
        if key not in done:
            done[key] = run_ranks(workers, *checks)
        return done[key]

    return run
