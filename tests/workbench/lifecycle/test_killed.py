"""A run whose process is killed without a warning, and what resume makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from workbench.lifecycle import PipelineResult

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SHORT = ("audit=null", "register=null", "deploy=null")
RUN = """
import sys
from pathlib import Path
from workbench.lifecycle import load_pipeline, run_pipeline
from workbench.lifecycle.testing import FakeFramework, MemoryWatcher
from workbench.records import MLflowStore

file, workspace, *overrides = sys.argv[1:]
run_pipeline(load_pipeline(Path(file), overrides), workspace=Path(workspace),
             store=MLflowStore(workspace), framework=FakeFramework(step_seconds=0.1),
             watcher=MemoryWatcher())
"""


def wait_for_steps(workspace: Path, steps: int, process: subprocess.Popen[bytes]) -> Path:
    for _ in range(1200):
        for spool in workspace.glob("stages/train/*/records.jsonl"):
            if spool.read_text().count("\n") >= steps:
                return spool
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError("training never began")


def test_a_killed_run_is_resumed_from_its_checkpoint_and_nothing_recorded_is_lost(
    project: Any,
) -> None:
    command = [sys.executable, "-c", RUN, str(project.folder / "pipeline.yaml")]
    process = subprocess.Popen([*command, str(project.workspace), *SHORT])
    try:
        spool = wait_for_steps(project.workspace, 8, process)
        alive: PipelineResult = project.run(*SHORT)
        assert alive.exit_code == 4
        assert f"being worked on by process {process.pid}" in alive.message
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    written = spool.read_text().count("\n")
    killed = [
        r for r in project.store.find_runs(tags={"wb.kind": "pipeline"}) if r.name == "tiny-1"
    ]
    assert killed[0].status == "RUNNING"
    end_second_run(project, alive.run_id)

    resumed = project.run(*SHORT, resume=True)
    assert resumed.exit_code == 0, resumed.message
    assert resumed.run_id == killed[0].run_id
    assert [stage.status for stage in resumed.stages[:4]] == ["reused", "reused", "done", "done"]
    assert project.framework.resumed_at[-1] >= written - 1
    train = resumed.stages[2]
    steps = [point.step for point in project.store.metric_history(train.run_id, "loss")]
    assert sorted(set(steps)) == list(range(1, train.values["steps"] + 1))


def end_second_run(project: Any, run_id: str) -> None:
    """Take the run that found the lock out of the way: it is the newest unfinished one."""
    project.store.set_tags(run_id, {"wb.status": "done"})
