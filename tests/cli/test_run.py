"""`wb run` on pipelines: every exit code, what is printed, and what reaches the lifecycle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import main
from workbench.errors import InfrastructureError
from workbench.lifecycle.ports import PipelineResult, StageResult
from workbench.record import Record

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@dataclass
class FakeRunner:
    """Takes the place of the lifecycle's runner: plays a run and returns a result."""

    result: PipelineResult
    records: list[Record]
    asked: dict[str, Any] = field(default_factory=dict)
    during: Callable[[], None] = lambda: None

    def __call__(self, pipeline: Any, *, watcher: Any, **asked: Any) -> PipelineResult:
        self.asked = {**asked, "pipeline": pipeline}
        watcher.pipeline_started("digits", "r" * 32, "digits-1")
        watcher.stage_started("train")
        print("chatter of a prepare function")
        for record in self.records:
            watcher.training(record, 512, 2)
        self.during()
        if asked["should_stop"]():
            return replace(self.result, status="interrupted", exit_code=130, message="interrupted")
        watcher.stage_ended(self.result.stages[0])
        return self.result


@pytest.fixture
def runner(growth: list[Record], monkeypatch: pytest.MonkeyPatch, outside: Path) -> FakeRunner:
    result = PipelineResult(
        run_id="r" * 32,
        run_name="digits-1",
        pipeline="digits",
        status="done",
        stages=(StageResult(name="train", status="done", seconds=1.0, summary="4 steps"),),
        metrics={"accuracy": 0.97, "log_loss": float("nan")},
        decisions=tuple(growth[1:3]),
        verdict="pass",
        gates=("accuracy_difference over ink is 0.02: at most 0.25",),
        model="digits",
        version="1",
        alias="champion",
    )
    fake = FakeRunner(result=result, records=growth)
    monkeypatch.setattr("workbench.lifecycle.runner.run_pipeline", fake)
    monkeypatch.setattr("workbench.cli.run.open_store", lambda place: place)
    assert outside.exists()
    return fake


def test_the_result_is_tables_on_stdout_and_progress_is_on_stderr(
    runner: FakeRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run"]) == 0
    out, err = capsys.readouterr()
    for words in (
        "✓ done",
        "accuracy",
        "0.97",
        "decisions of grow_with_noise",
        "batch size 64 → 128",
        "noise_scale 812 [640, 1010]",
        "refused: more than the data set",
        "pass",
        "digits version 1, now @champion",
        "wb serve digits@champion",
        f"wb ui --run {'r' * 32}",
    ):
        assert words in out
    assert "decision   step 2" in err
    assert "decision   step 2" not in out
    assert runner.asked["pipeline"].name == "digits"


def test_json_is_exactly_one_strict_object(
    runner: FakeRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--json"]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1
    told = json.loads(out, parse_constant=lambda token: pytest.fail(token))
    assert told["metrics"] == {"accuracy": 0.97, "log_loss": None}
    assert [decision["after"] for decision in told["decisions"]] == ["128", "4,096"]
    assert told["run_id"] == runner.result.run_id
    assert told["see"] == f"wb ui --run {'r' * 32}"
    assert "chatter of a prepare function" in err


@pytest.mark.parametrize(
    ("status", "code"),
    [("failed", 1), ("failed", 2), ("refused", 3), ("failed", 4), ("interrupted", 130)],
)
def test_every_exit_code_comes_with_its_line(
    status: str, code: int, runner: FakeRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.result = replace(
        runner.result,
        status=status,
        exit_code=code,
        message="batch_size is -4;\nallowed: 1 or more",
    )
    assert main(["run"]) == code
    assert capsys.readouterr().err.endswith("\nwb: batch_size is -4; allowed: 1 or more\n")


def test_ctrl_c_reaches_the_runner(runner: FakeRunner, capsys: pytest.CaptureFixture[str]) -> None:
    import signal

    runner.during = lambda: signal.raise_signal(signal.SIGINT)
    assert main(["run"]) == 130
    assert "wb: interrupted" in capsys.readouterr().err


def test_a_training_that_did_not_end_is_not_said_to_have_decided_nothing(
    runner: FakeRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.result = replace(runner.result, decisions=())
    assert main(["run"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    stage = replace(runner.result.stages[0], status="failed")
    runner.result = replace(runner.result, stages=(stage,), exit_code=1, message="x")
    assert main(["run"]) == 1
    assert "nothing was changed" not in capsys.readouterr().out


def test_options_become_settings(runner: FakeRunner, capsys: pytest.CaptureFixture[str]) -> None:
    policy = "schedule,at=1:32;2:64,by=epoch"
    args = ["run", "train.epochs=3", "--workers", "2:4", "--policy", policy, "--resume"]
    assert main(args) == 0
    train = runner.asked["pipeline"].train
    assert (train.epochs, str(train.workers)) == (3, "2:4")
    assert train.policies == [{"schedule": {"at": "1:32;2:64", "by": "epoch"}}]
    assert runner.asked["resume"] is True
    assert "does not resize a running job" in capsys.readouterr().err


def test_policy_none_watches_only(runner: FakeRunner) -> None:
    assert main(["run", "--policy", "none"]) == 0
    assert runner.asked["pipeline"].train.policies == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--engine", "horovod"], "not built here yet; allowed: local"),
        (["--workers", "many"], "MIN:MAX"),
        (["--policy", "grow"], "policy is 'grow'"),
        (["--policy", "grow_with_noise,size=3"], "max_batch_size"),
        (["train.epochs=-1"], "train.epochs"),
        (["trian.epochs=1"], "did you mean train?"),
        (["train.optimizer.name=adamm"], "adamm"),
        (["train.monitors=[noise]"], "monitor 'noise' does not exist"),
        (["--", "--lr", "1"], "after -- is for a script"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    args: list[str], said: str, runner: FakeRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *args]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert runner.asked == {}


def test_a_dry_run_prints_the_plan_and_runs_nothing(
    runner: FakeRunner, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--dry-run"]) == 0
    assert "never ran" in capsys.readouterr().out
    assert main(["run", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in told["plan"]][:3] == ["prepare", "contract", "train"]
    assert runner.asked == {}
    assert list(outside.iterdir()) == []


def test_a_workspace_that_cannot_be_written_is_exit_code_4(
    outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (outside / "file").touch()
    assert main(["run", "--workspace", "file/w"]) == InfrastructureError.exit_code
    assert "cannot be written" in capsys.readouterr().err


def test_many_decisions_show_their_two_ends(
    growth: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    from workbench.cli.summary import console_for_result, print_decisions
    from workbench.cli.words import tell

    many = [replace(tell(growth[1]), step=step) for step in range(100)]
    print_decisions(console_for_result(), many)
    out = capsys.readouterr().out
    assert "88 more: wb show --json" in out
    assert len([line for line in out.splitlines() if "64 → 128" in line]) == 12
