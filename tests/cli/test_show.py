"""`wb show` and `wb models`, from what a real store holds; and how a run is found."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from workbench.cli import main
from workbench.cli.runs import find_run, recent_runs
from workbench.cli.summary import print_verdict
from workbench.errors import UsageError
from workbench.record import Record
from workbench.records import MLflowStore

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@dataclass(frozen=True)
class Recorded:
    """A store that holds one pipeline's run and, later, one script's."""

    store: MLflowStore
    pipeline: str
    train: str
    script: str

    def wb(self, *args: str) -> int:
        return main([*args, "--workspace", str(self.store.workspace)])


@pytest.fixture(scope="module")
def recorded(store: MLflowStore, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return _record_runs(store, tmp_path_factory.mktemp("model"))


def _record_runs(store: MLflowStore, model: Path) -> Recorded:
    pipeline = store.start_run(
        "tiny-1",
        tags={
            "wb.kind": "pipeline",
            "wb.pipeline": "tiny",
            "wb.status": "refused",
            "wb.error": "a gate refused: the gap is surely above 0.01",
            "wb.verdict": "fail",
            "wb.command": "wb run tiny.yaml",
            "wb.user": "ada",
        },
    )
    tags = {"wb.kind": "stage", "wb.stage": "train", "wb.status": "done", "wb.summary": "4 steps"}
    train = store.start_run("train", parent_id=pipeline, tags=tags)
    store.end_run(train)
    store.end_run(pipeline, "FAILED")
    version = store.register_model("tiny", model.as_uri())
    store.set_alias("tiny", "champion", version.version)
    script = store.start_run(
        "train-abc",
        tags={"wb.kind": "script", "wb.script": "train.py", "wb.status": "done"},
    )
    store.end_run(script)
    return Recorded(store=store, pipeline=pipeline, train=train, script=script)


def test_the_story_of_a_pipeline_has_status_reason_and_stages(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recorded.wb("show", "tiny-1") == 0
    out = capsys.readouterr().out
    for words in (
        f"tiny-1 ({recorded.pipeline})",
        "refused",
        "a gate refused: the gap is surely above 0.01",
        "wb run tiny.yaml",
        "ada",
        "✓ done",
        "4 steps",
        f"wb ui --run {recorded.pipeline} --workspace",
    ):
        assert words in out


def test_json_is_the_story_as_one_object(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recorded.wb("show", recorded.train, "--json") == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda token: pytest.fail(token))
    assert told["run_id"] == recorded.pipeline  # a stage's run leads to its pipeline's
    assert told["stages"][0]["name"] == "train"


def test_a_scripts_run_has_its_decisions(
    recorded: Recorded, growth: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.store.log_decisions(recorded.script, growth)
    assert recorded.wb("show", "latest") == 0
    out = capsys.readouterr().out
    assert "train-abc" in out
    assert "batch size 64 → 128" in out
    assert "refused: more than the data set" in out


def test_a_run_is_found_by_id_start_of_id_name_and_latest(recorded: Recorded) -> None:
    store = recorded.store
    for wanted in (recorded.pipeline, recorded.pipeline[:10], "tiny-1"):
        assert find_run(store, wanted).run_id == recorded.pipeline
    assert find_run(store).run_id == recorded.script == recent_runs(store)[0].run_id
    assert find_run(store, recorded.train).run_id == recorded.train


@pytest.mark.parametrize("wanted", ["nothing", "0" * 32, "abc"])
def test_a_run_that_is_not_there_is_refused(wanted: str, recorded: Recorded) -> None:
    with pytest.raises(UsageError):
        find_run(recorded.store, wanted)


def test_the_error_names_the_runs_that_are_there(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recorded.wb("show", "nothing") == 2
    assert "the last runs: train-abc, tiny-1" in capsys.readouterr().err


def test_an_empty_workspace_says_how_to_start(
    outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["show"], ["models"], ["ui"], ["serve", "m"]):
        assert main(command) == 2
        assert "start with 'wb run'" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


def test_models_lists_versions_and_aliases(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recorded.wb("models") == 0
    assert "@champion" in capsys.readouterr().out
    assert recorded.wb("models", "--json") == 0
    models = json.loads(capsys.readouterr().out)["models"]
    (model,) = [found for found in models if found["name"] == "tiny"]
    assert (model["name"], model["version"], model["aliases"]) == ("tiny", 1, ["champion"])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nothing", "registered: "),
        ("tiny@nobody", "there: version 1 (@champion)"),
        ("tiny/9", "no version 9"),
    ],
)
def test_serving_what_is_not_there_lists_what_is(
    model: str, said: str, recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recorded.wb("serve", model) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [["ui"], ["serve", "tiny@champion"]])
def test_a_port_in_use_is_exit_code_4_with_another_port(
    command: list[str], recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert recorded.wb(*command, "--port", port) == 4
    err = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is in use" in err
    assert "such as --port" in err


def test_a_server_elsewhere_has_its_own_ui(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "--tracking-uri", "http://tracker.example:5000/"]) in (0, 4)
    out, err = capsys.readouterr()
    assert "http://tracker.example:5000/" in out + err


def test_a_verdict_wraps_between_words_on_a_terminal_and_is_one_line_in_a_file() -> None:
    sentence = "the difference is small " * 8
    drawn = {}
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, width=60, force_terminal=terminal, color_system=None)
        print_verdict(console, "pass", [sentence.strip()])
        drawn[terminal] = [line for line in out.getvalue().splitlines() if "difference" in line]

    assert len(drawn[False]) == 1
    assert len(drawn[True]) > 1
    assert {word for line in drawn[True] for word in line.split()} == set(sentence.split())
    assert all(line.startswith(" " * 11) for line in drawn[True])
