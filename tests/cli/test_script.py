"""`wb run train.py`: a user's own loop, in real processes, recorded as one run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.cli.runs import find_run
from workbench.cli.script import ScriptJob, run_script_job
from workbench.cli.show import story_of
from workbench.cli.targets import PolicyChoice
from workbench.cli.words import tell_row
from workbench.cli.workspace import Place
from workbench.codec import to_json
from workbench.errors import ConfigurationError, Interrupted, StageError
from workbench.lifecycle.ports import StageResult
from workbench.record import Record
from workbench.records import MLflowStore

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Wb = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = """
import sys, torch
from workbench.adaptors.torch import attach
from workbench.policies import Schedule

torch.manual_seed(0)
inputs, targets = torch.randn(64, 3), torch.randn(64, 1)
data = torch.utils.data.TensorDataset(inputs, targets)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
print("the script was given", sys.argv[1:])
if "--fail" in sys.argv:
    raise RuntimeError("out of luck")
job = attach(model, optimizer, data, batch_size=8, policies=[Schedule(at={2: 16})])
for epoch in job.epochs(2):
    for x, y in epoch:
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


def test_a_script_runs_with_its_arguments_and_its_decisions_are_recorded(
    script: Path, wb: Wb, store: MLflowStore
) -> None:
    workspace = ["--workspace", str(store.workspace)]
    done = wb("run", script.name, "--json", *workspace, "--", "--lr", "0.1")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [decision["after"] for decision in told["decisions"]] == ["16"]
    assert told["stages"][0]["summary"].endswith("128 samples, 2 epochs")
    assert "the script was given ['--lr', '0.1']" in done.stderr
    assert "decision   step 2: batch size 8 → 16" in done.stderr
    story = story_of(store, find_run(store, told["run_name"]))
    assert [tell_row(row).change for row in story.decisions] == ["batch size 8 → 16"]


def test_a_script_that_raises_is_exit_code_1_with_its_own_last_line(
    script: Path, wb: Wb, store: MLflowStore
) -> None:
    done = wb("run", script.name, "--workspace", str(store.workspace), "--", "--fail")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("wb: rank 0 failed: RuntimeError: out of luck")
    assert "the script was given" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train.lr=1"], "its own arguments come after --"),
        (["--resume"], "--resume is for a pipeline"),
        (["--policy", "grow"], "policy is 'grow'"),
    ],
)
def test_what_a_script_cannot_take_is_refused(
    args: list[str],
    said: str,
    script: Path,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from workbench.cli import main

    assert outside.exists()
    monkeypatch.setattr("workbench.cli.run.open_store", lambda place: place)
    assert main(["run", script.name, *args]) == 2
    assert said in capsys.readouterr().err


def test_a_dry_run_says_what_would_start(
    script: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from workbench.cli import main

    assert outside.exists()
    args = ["run", script.name, "--workers", "2", "--policy", "none", "--dry-run"]
    assert main([*args, "--", "--lr", "1"]) == 0
    out = capsys.readouterr().out
    assert "train.py --lr 1" in out
    assert "none (watch only)" in out


class Heard:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.notes: list[str] = []
        self.ended: list[StageResult] = []

    def pipeline_started(self, name: str, run_id: str, run_name: str) -> None:
        self.run = (name, run_id, run_name)

    def stage_started(self, name: str) -> None:
        self.stage = name

    def stage_ended(self, result: StageResult) -> None:
        self.ended.append(result)

    def training(self, record: Record, samples_total: int, epochs: int) -> None:
        assert (samples_total, epochs) == (0, 0)
        self.records.append(record)

    def note(self, message: str) -> None:
        self.notes.append(message)


def _run(store: MLflowStore, launch: Any, **job: Any) -> tuple[Any, Heard]:
    heard = Heard()
    place = Place(workspace=store.workspace, tracking_uri=store.tracking_uri, own=True)
    task = ScriptJob(path=Path("train.py"), **job)
    return run_script_job(task, place, store, heard, lambda: False, launch), heard


@pytest.mark.parametrize(
    ("error", "status", "code", "stored"),
    [
        (None, "done", 0, "FINISHED"),
        (StageError("rank 0 failed"), "failed", 1, "FAILED"),
        (Interrupted("training was interrupted"), "interrupted", 130, "KILLED"),
    ],
)
def test_however_it_ends_the_run_is_ended_and_nothing_is_lost(
    error: Exception | None,
    status: str,
    code: int,
    stored: str,
    store: MLflowStore,
    growth: list[Record],
) -> None:
    def launch(path: Path, arguments: Any, *, folder: Path, **_: Any) -> None:
        assert path.is_absolute()
        assert arguments == ["--lr", "1"]
        spool = folder / "records.jsonl"
        spool.write_text("".join(to_json(record) + "\n" for record in growth))
        (folder / "rank-0.log").write_text("hello\n")
        if error is not None:
            raise error

    result, heard = _run(store, launch, arguments=("--lr", "1"), workers=2)
    run = store.get_run(result.run_id)
    assert (result.status, result.exit_code, run.status) == (status, code, stored)
    assert heard.records == growth
    assert [point.step for point in store.metric_history(run.run_id, "batch_size")] == [1, 2, 3, 4]
    assert set(store.artifact_names(run.run_id)) >= {"decisions.json", "logs/rank-0.log"}
    assert run.params["workers"] == "2"
    assert heard.ended == list(result.stages)


def test_a_script_that_attaches_nothing_is_told_so(store: MLflowStore) -> None:
    result, _ = _run(store, lambda *_, **__: None)
    assert result.exit_code == 0
    assert "attaches no job" in result.stages[0].summary


def test_policies_are_checked_before_anything_starts(store: MLflowStore) -> None:
    before = len(store.find_runs())
    bad = [PolicyChoice(name="grow_with_noise", options={"size": 3})]
    with pytest.raises(ConfigurationError, match="max_batch_size"):
        _run(store, lambda *_, **__: pytest.fail("it was started"), policies=bad)
    assert len(store.find_runs()) == before


def test_a_policy_of_the_users_own_is_found_beside_the_script(
    store: MLflowStore, tmp_path: Path
) -> None:
    (tmp_path / "beside_the_script.py").write_text(
        "class Mine:\n    def decide(self, view):\n        raise NotImplementedError\n"
    )
    job = ScriptJob(
        path=tmp_path / "train.py",
        workers=1,
        policies=[PolicyChoice(name="beside_the_script:Mine", options={})],
    )
    handed: list[Any] = []
    place = Place(workspace=store.workspace, tracking_uri=store.tracking_uri, own=True)

    def launch(*_: Any, **options: Any) -> None:
        handed.append(options["policies"])

    result = run_script_job(job, place, store, Heard(), lambda: False, launch)
    assert result.exit_code == 0
    assert handed == [[{"name": "beside_the_script:Mine", "options": {}}]]
