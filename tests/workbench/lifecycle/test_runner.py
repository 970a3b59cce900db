"""A pipeline from data to deployment on a real sqlite store, with a framework that really trains."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import ConfigurationError, InfrastructureError
from workbench.lifecycle import PipelineResult, load_pipeline, plan, tell
from workbench.lifecycle.testing import FakeFramework
from workbench.records import MLflowStore

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
]
SHORT = ("audit=null", "register=null", "deploy=null")


def statuses(result: PipelineResult) -> list[str]:
    return [stage.status for stage in result.stages]


def test_a_pipeline_goes_from_data_to_a_deployed_audited_model(deployed: Any) -> None:
    project, result = deployed
    assert result.message == ""
    assert (result.status, result.exit_code) == ("done", 0)
    assert statuses(result) == ["done"] * 7
    assert result.metrics["accuracy"] > 0.8
    assert (result.model, result.version, result.alias) == ("tiny", "1", "champion")
    assert result.verdict == "pass"
    assert [decision.decision.kind for decision in result.decisions] == ["set_batch_size"]
    assert project.store.get_alias("tiny", "champion").version == 1


def test_every_stage_is_a_finished_run_under_one_parent(deployed: Any) -> None:
    project, result = deployed
    children = project.store.children(result.run_id)
    assert [run.name for run in children] == [stage.name for stage in result.stages]
    assert all(run.finished for run in children)
    parent = project.store.get_run(result.run_id)
    assert parent.finished
    assert {"pipeline.yaml", "pipeline.resolved.yaml", "provenance.json"} <= set(
        project.store.artifact_names(result.run_id)
    )
    assert parent.tags["wb.command"]
    assert parent.tags["wb.user"]


def test_every_training_step_reached_the_server_and_the_watcher(deployed: Any) -> None:
    project, result = deployed
    train = next(stage for stage in result.stages if stage.name == "train")
    steps = [p.step for p in project.store.metric_history(train.run_id, "loss")]
    assert steps == list(range(1, train.values["steps"] + 1))
    assert [r.facts.step for r in project.watcher.records] == steps
    run = project.store.get_run(train.run_id)
    assert run.params["batch_size_start"] == "20"
    assert "batch_size" not in run.params
    assert run.metrics["batch_size"] == 40


def test_data_are_linked_by_digest_to_the_runs_that_used_them(deployed: Any) -> None:
    project, result = deployed
    digest = result.stages[0].values["digest"]
    for run_id in (result.run_id, result.stages[2].run_id, result.stages[3].run_id):
        inputs = project.store.client.get_run(run_id).inputs.dataset_inputs
        assert [item.dataset.digest for item in inputs] == [digest[:36]]


def test_the_deployment_record_links_model_run_data_verdict_and_user(deployed: Any) -> None:
    project, result = deployed
    record = tell(project.store, result.run_id).deployment
    version = project.store.get_version("tiny", 1)
    assert record["train_run"] == result.stages[2].run_id == version.run_id
    assert record["data_digest"] == result.stages[0].values["digest"]
    assert record["verdict"] == version.tags["wb.verdict"] == "pass"
    assert record["deployed_by"] == version.tags["wb.deployed_by"]
    assert record["replaced_version"] is None
    assert record["check"]["largest_difference"] <= 1e-4
    assert record["check"]["rows"] == result.stages[0].values["split"]["held_back"]


def test_no_file_of_the_workspace_is_a_pickle(deployed: Any) -> None:
    project, _ = deployed
    suffixes = {path.suffix for path in project.workspace.rglob("*") if path.is_file()}
    assert not suffixes & {".pkl", ".pickle", ".pth", ".pt", ".joblib"}


def test_the_story_of_a_run_is_told_from_mlflow_alone(deployed: Any) -> None:
    project, result = deployed
    story = tell(MLflowStore(project.workspace), result.stages[2].run_id)
    assert (story.run_id, story.status, story.pipeline) == (result.run_id, "done", "tiny")
    assert [stage.name for stage in story.stages] == [stage.name for stage in result.stages]
    assert story.metrics == result.metrics
    assert [row["step"] for row in story.decisions] == [5]
    assert story.decisions[0]["reason"] == "the fake doubles once"
    assert [gate["verdict"] for gate in story.gates] == ["pass"]
    assert (story.model, story.version, story.alias) == ("tiny", "1", "champion")


def test_a_second_run_reuses_everything_and_says_from_where(deployed: Any) -> None:
    project, first = deployed
    again = project.run()
    assert again.exit_code == 0
    assert statuses(again) == ["reused"] * 7
    assert [s.reused_from for s in again.stages] == [s.run_id for s in first.stages]
    assert again.metrics == first.metrics
    assert again.decisions == first.decisions
    assert again.run_name == "tiny-2"
    children = project.store.children(again.run_id)
    assert all(run.tags["wb.reused_from"] for run in children)
    assert children[3].metrics["accuracy"] == first.metrics["accuracy"]
    assert len(project.framework.trained) == 1
    assert [row["step"] for row in tell(project.store, again.run_id).decisions] == [5]


def test_a_refused_gate_promotes_nothing_and_keeps_the_alias(deployed: Any) -> None:
    project, _ = deployed
    refused = project.run("audit.gates=[{metric: selection_rate_difference, max: 0}]")
    assert (refused.status, refused.exit_code) == ("refused", 3), refused.message
    assert statuses(refused)[3:] == ["reused", "refused", "skipped", "skipped"]
    assert refused.message.startswith("the audit refuses: selection_rate_difference over group")
    assert refused.message.endswith("; nothing was promoted, the report is kept")
    assert [version.version for version in project.store.versions("tiny")] == [1]
    assert project.store.get_alias("tiny", "champion").version == 1
    assert project.store.get_run(refused.run_id).status == "FAILED"
    assert "audit.html" in project.store.artifact_names(refused.stages[4].run_id)
    again = project.run("audit.gates=[{metric: selection_rate_difference, max: 0}]")
    assert (again.exit_code, again.stages[4].status) == (3, "refused")


def test_a_deploy_whose_alias_was_moved_away_runs_again(deployed: Any) -> None:
    project, first = deployed
    other = project.store.register_model("tiny", project.store.get_version("tiny", 1).source)
    project.store.set_alias("tiny", "champion", other.version)
    planned = plan(
        load_pipeline(project.folder / "pipeline.yaml"), project.workspace, project.store
    )
    assert [stage.action for stage in planned.stages] == ["reuse"] * 6 + ["run"]
    again = project.run()
    assert statuses(again) == ["reused"] * 6 + ["done"], again.message
    assert tell(project.store, again.run_id).deployment["replaced_version"] == other.version
    assert project.store.get_alias("tiny", "champion").version == int(first.version)


def test_what_is_left_out_is_skipped_and_said(project: Any) -> None:
    result = project.run(*SHORT, "evaluate=null", "contract=null")
    assert statuses(result) == ["done", "skipped", "done"] + ["skipped"] * 4
    assert result.stages[1].summary == "not in the pipeline"
    assert len(project.store.children(result.run_id)) == 2


def test_a_change_runs_again_from_where_it_matters_and_no_earlier(project: Any) -> None:
    assert statuses(project.run(*SHORT))[:4] == ["done"] * 4
    # a setting of evaluate
    changed = project.run(*SHORT, "evaluate.metrics=[f1]")
    assert statuses(changed)[:4] == ["reused", "reused", "reused", "done"]
    # how often a checkpoint is kept changes no result
    assert statuses(project.run(*SHORT, "train.checkpoint_seconds=1"))[:4] == ["reused"] * 4
    # the user's code, without a change of the data: prepare runs, nothing else
    path = project.folder / "tiny_prepare.py"
    path.write_text(path.read_text() + "\n# a comment\n")
    assert statuses(project.run(*SHORT))[:4] == ["done", "reused", "reused", "reused"]
    # the user's code and with it the data
    path.write_text(path.read_text().replace("shift=1.5", "shift=1.0"))
    assert statuses(project.run(*SHORT))[:4] == ["done"] * 4
    # the model's code
    path = project.folder / "tiny_model.py"
    path.write_text(path.read_text() + "\nWIDTH = 3\n")
    assert statuses(project.run(*SHORT))[:4] == ["reused", "reused", "done", "done"]


def test_the_plan_says_what_would_run_and_why(project: Any) -> None:
    file = project.folder / "pipeline.yaml"
    before = plan(load_pipeline(file, SHORT), project.workspace)
    assert [stage.action for stage in before.stages[:4]] == ["run", "open", "open", "open"]
    assert before.stages[0].why == "never ran"
    project.run(*SHORT)
    after = plan(load_pipeline(file, [*SHORT, "train.epochs=3"]), project.workspace)
    assert [s.action for s in after.stages] == ["reuse", "reuse", "run", "open"] + ["skip"] * 3
    assert after.stages[2].why == "settings changed: epochs"


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("raise ValueError('bad row')", 1, "tiny_prepare:load raised ValueError: bad row (tiny_pr"),
        ("{}['AGEP']", 2, "column or key 'AGEP' is missing (tiny_prepare.py:"),
        ("open('/nowhere/rows.csv')", 2, "there is no file /nowhere/rows.csv"),
        ("return 3", 2, "returned a int"),
        ("raise OSError(28, 'No space left on device')", 4, "no space left in"),
        ("raise OSError(30, 'Read-only file system')", 4, "it is read-only"),
        ("raise KeyboardInterrupt", 130, "wb run --resume goes on"),
    ],
)
def test_a_prepare_that_fails_is_one_line_and_a_failed_run(
    project: Any, code: str, exit_code: int, said: str
) -> None:
    project.write("tiny_prepare.py", f"def load(rows):\n    {code}\n")
    result = project.run()
    assert result.exit_code == exit_code
    assert said in result.message
    assert "\n" not in result.message
    assert statuses(result)[1:] == ["skipped"] * 6
    parent = project.store.get_run(result.run_id)
    assert parent.status == ("KILLED" if exit_code == 130 else "FAILED")
    assert parent.tags["wb.error"] == result.message
    assert [run.status for run in project.store.children(result.run_id)] == [parent.status]


@pytest.mark.parametrize(
    ("override", "exit_code", "said"),
    [
        ("prepare.call=nowhere:load", 2, "there is no module nowhere"),
        ("prepare.call=tiny_prepare:lod", 2, "tiny_prepare has no lod; it has: load"),
        ("prepare.colour=red", 2, "it takes: rows, shift, seed"),
        ("audit.attributes=[SEX]", 2, "names SEX, which the table lacks; it has: group, age"),
        ("evaluate.metrics=[mae]", 2, "the targets are 2 classes; allowed: accuracy"),
        ("audit.gates.0.metric=fairness", 2, "gate metric"),
        ("contract.columns.age.max=20", 2, "column age breaks its contract"),
        ("train.model=tiny_model:bild", 2, "tiny_model has no bild"),
    ],
)
def test_what_cannot_work_is_found_before_training(
    project: Any, override: str, exit_code: int, said: str
) -> None:
    result = project.run(override)
    assert result.exit_code == exit_code
    assert said in result.message
    assert project.framework.trained == []


def test_a_nan_loss_names_its_step_and_keeps_the_last_good_checkpoint(project: Any) -> None:
    framework = FakeFramework(nan_at_step=4)
    result = project.run(framework=framework)
    assert result.exit_code == 1
    assert "NaN at step 4" in result.message
    train = result.stages[2]
    assert train.status == "failed"
    folder = Path(framework.trained[0].folder)
    assert json.loads((folder / "checkpoint" / "state.json").read_text())["step"] == 3
    steps = [point.step for point in project.store.metric_history(train.run_id, "loss")]
    assert steps == [1, 2, 3, 4]
    assert project.store.get_run(train.run_id).status == "FAILED"


def test_an_interrupt_keeps_what_is_done_and_resume_goes_on_in_the_same_run(project: Any) -> None:
    seen: list[int] = []

    def should_stop() -> bool:
        seen.append(1)
        return len(seen) > 10

    stopped = project.run(*SHORT, should_stop=should_stop)
    assert (stopped.status, stopped.exit_code) == ("interrupted", 130)
    assert statuses(stopped)[:4] == ["done", "done", "interrupted", "skipped"]
    assert project.store.get_run(stopped.run_id).status == "KILLED"
    resumed = project.run(*SHORT, resume=True)
    assert resumed.run_id == stopped.run_id
    assert statuses(resumed)[:4] == ["reused", "reused", "done", "done"]
    assert project.framework.resumed_at[1] == project.framework.resumed_at[0] + 7
    train = resumed.stages[2]
    assert train.run_id == stopped.stages[2].run_id
    points = project.store.metric_history(train.run_id, "loss")
    assert [p.step for p in points] == list(range(1, train.values["steps"] + 1))
    assert project.store.get_run(resumed.run_id).finished


def test_resume_with_nothing_to_resume_starts_a_run_and_says_so(project: Any) -> None:
    first = project.run(*SHORT, resume=True)
    assert project.watcher.notes == [
        "nothing to resume: this pipeline has no earlier run; starting a new one"
    ]
    second = project.run(*SHORT, resume=True)
    assert second.run_id != first.run_id
    assert "run tiny-1 ended (done)" in project.watcher.notes[0]


def test_a_workspace_that_cannot_be_written_is_one_line_of_infrastructure(
    project: Any, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "stages").write_text("a file where the folder should be")
    from workbench.lifecycle import run_pipeline

    result = run_pipeline(
        load_pipeline(project.folder / "pipeline.yaml"),
        workspace=blocked,
        store=project.store,
        framework=FakeFramework(),
        watcher=project.watcher,
    )
    assert result.exit_code in (1, 4)
    assert str(blocked) in result.message
    assert "\n" not in result.message


class AwayStore(MLflowStore):
    """A store whose server goes away at the first metric of training, until told otherwise."""

    away = False

    def log_metric_batch(self, run_id: str, points: Any) -> None:
        if self.away and any(point.name == "loss" for point in points):
            raise InfrastructureError("the tracking server is down; start it")
        super().log_metric_batch(run_id, points)


def test_a_server_that_is_down_during_training_is_said_once_and_resume_sends_the_rest(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.lifecycle.stages import train as train_stage

    monkeypatch.setattr(train_stage, "_DRAIN_SECONDS", 1.0)
    store = AwayStore(project.workspace)
    store.away = True
    lost = project.run(*SHORT, store=store)
    assert lost.exit_code == 4
    assert "wb run --resume sends the rest" in lost.message
    assert sum("the tracking server is down" in note for note in project.watcher.notes) == 1
    store.away = False
    resumed = project.run(*SHORT, store=store, resume=True)
    assert resumed.exit_code == 0, resumed.message
    assert resumed.run_id == lost.run_id
    assert len(project.framework.trained) == 1
    train = resumed.stages[2]
    points = store.metric_history(train.run_id, "loss")
    assert [p.step for p in points] == list(range(1, train.values["steps"] + 1))


def test_a_server_that_is_down_at_the_start_is_exit_4_and_nothing_ran(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise InfrastructureError("the tracking server http://x is down; start it")

    monkeypatch.setattr(project.store, "ping", down)
    result = project.run()
    assert (result.exit_code, result.run_id) == (4, "")
    assert project.watcher.stages == []


def test_a_full_disk_while_the_result_is_kept_is_exit_4_and_the_next_run_repairs_it(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("workbench.lifecycle.results.os.fsync", full)
        result = project.run(*SHORT)
    assert result.exit_code == 4
    assert "no space left" in result.message
    assert statuses(project.run(*SHORT))[:4] == ["done"] * 4


def test_a_training_that_fails_before_its_first_step_keeps_its_own_message(project: Any) -> None:
    class Failing(FakeFramework):
        def train(self, *_: Any, **__: Any) -> Any:
            raise ConfigurationError("the model returned 3 outputs for 10 classes")

    result = project.run(*SHORT, framework=Failing())
    assert (result.exit_code, result.message) == (2, "the model returned 3 outputs for 10 classes")
    assert project.store.get_run(result.run_id).status == "FAILED"


def test_decisions_are_in_the_result_of_an_interrupted_training(project: Any) -> None:
    project.framework = FakeFramework(step_seconds=0.01, grow_at_step=3)
    asked = 0

    def soon() -> bool:
        nonlocal asked
        asked += 1
        return asked > 12

    result = project.run(*SHORT, should_stop=soon)
    assert result.exit_code == 130
    assert [record.decision.kind for record in result.decisions] == ["set_batch_size"]


def test_decisions_are_in_the_result_of_a_failed_training(project: Any) -> None:
    project.framework = FakeFramework(nan_at_step=9, grow_at_step=3)
    result = project.run(*SHORT)
    assert result.exit_code == 1
    assert [record.facts.step for record in result.decisions] == [3]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise SystemExit(7)", "raised SystemExit: 7"),
        ("raise RuntimeError('one\\ntwo')", "raised RuntimeError: one two"),
    ],
)
def test_a_prepare_function_that_leaves_or_speaks_many_lines_is_one_line(
    project: Any, body: str, told: str
) -> None:
    project.write("tiny_prepare.py", f"def load(rows=400):\n    {body}\n")
    result = project.run()
    assert result.exit_code == 1
    assert told in result.message
    assert "\n" not in result.message
    assert all("\n" not in stage.summary for stage in result.stages)
