"""Real processes: the same job with 1, 2 and 3 workers, and workers that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from workbench.adaptors.torch.launch import Failure, _culprit, run_script
from workbench.errors import InfrastructureError, Interrupted, StageError

SCRIPTS = Path(__file__).parent / "scripts"
pytestmark = pytest.mark.timeout(180)


def run_equal(folder: Path, workers: int, **options: Any) -> dict[str, Any]:
    lines: list[str] = []
    run_script(
        SCRIPTS / "equal.py",
        [json.dumps(options)],
        workers=workers,
        folder=folder,
        on_line=lines.append,
    )
    told: dict[str, Any] = json.loads(lines[-1])
    assert told["workers"] == workers
    return told


def test_losses_do_not_depend_on_the_number_of_workers_over_200_steps(tmp_path: Path) -> None:
    options = {"count": 803, "epochs": 8, "batch_size": 32}
    one, two = run_equal(tmp_path / "1", 1, **options), run_equal(tmp_path / "2", 2, **options)
    assert len(one["losses"]) > 200
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert two["big"] == pytest.approx(one["big"], rel=1e-3)
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-5)
    assert (one["origins"], two["origins"]) == (["split"], ["ranks"])
    assert one["never"] is two["never"] is True


@pytest.mark.parametrize(("count", "batch_size"), [(7, 2), (2, 16)])
def test_fewer_samples_than_workers_are_shown_once_and_count_right(
    tmp_path: Path, count: int, batch_size: int
) -> None:
    options = {"count": count, "epochs": 3, "batch_size": batch_size}
    one, three = run_equal(tmp_path / "1", 1, **options), run_equal(tmp_path / "3", 3, **options)
    assert three["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert three["weights"] == pytest.approx(one["weights"], abs=1e-5)
    assert three["samples"] == 3 * count
    assert max(three["parts"]) <= min(3, count)


def test_ranks_with_micro_batches_measure_what_micro_batches_alone_do(tmp_path: Path) -> None:
    options = {"count": 96, "epochs": 2, "batch_size": 24}
    ranks = run_equal(tmp_path / "2", 2, **options, max_batch_size_per_worker=6)
    alone = run_equal(tmp_path / "1", 1, **options, max_batch_size_per_worker=6)
    assert (ranks["origins"], alone["origins"]) == (["ranks+micro-batches"], ["micro-batches"])
    assert ranks["parts"] == alone["parts"] == [4] * 8
    assert ranks["small"] == pytest.approx(alone["small"], rel=1e-3)
    assert ranks["big"] == pytest.approx(alone["big"], rel=1e-3)


def test_decisions_fall_at_the_same_step_on_any_number_of_workers(tmp_path: Path) -> None:
    options = {"count": 96, "epochs": 3, "batch_size": 8, "schedule": {"5": 16, "12": 32}}
    one, two = run_equal(tmp_path / "1", 1, **options), run_equal(tmp_path / "2", 2, **options)
    assert one["sizes"] == two["sizes"]
    assert one["sizes"][:14] == [8] * 6 + [16] * 3 + [16] * 4 + [32]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)


EVERYTHING = (
    "norms",
    "inner_products",
    "preconditioned",
    "successive",
    "phases",
    "ranks",
    "group:first",
    "update:second",
)


def test_two_workers_measure_what_two_halves_on_one_do(tmp_path: Path) -> None:
    """``W`` times ``b`` samples on ranks equal ``W`` small batches on one worker, fact by fact."""
    options = {"count": 96, "epochs": 2, "batch_size": 24, "needs": EVERYTHING, "model_seed": 3}
    options["double"] = True  # in single precision differences of norms hold fewer digits
    one, two = run_equal(tmp_path / "1", 1, **options), run_equal(tmp_path / "2", 2, **options)
    for alone, ranks in zip(one["facts"], two["facts"], strict=True):
        for name in ("grad_sqnorm_small", "grad_sqnorm_big", "small_batches"):
            assert ranks[name] == pytest.approx(alone[name], rel=1e-8)
        assert ranks["grad_dot_variance"] == pytest.approx(alone["grad_dot_variance"], rel=1e-6)
        assert ranks["preconditioned"] == (
            alone["preconditioned"] and _near(alone["preconditioned"])
        )
        assert ranks["successive"] == (alone["successive"] and _near(alone["successive"]))
        for group, other in zip(ranks["groups"], alone["groups"], strict=True):
            assert group["grad"] == (other["grad"] and _near(other["grad"]))
            assert group["update_sqnorm"] == (
                other["update_sqnorm"] and pytest.approx(other["update_sqnorm"], rel=1e-6)
            )
        assert len(ranks["ranks"]) == 2
        assert all(rank["busy_seconds"] > 0.0 for rank in ranks["ranks"])
        assert ranks["phases"]["communication"] > 0.0 == alone["phases"]["communication"]
    assert sum(facts["preconditioned"] is not None for facts in two["facts"]) == 7


def test_two_workers_measure_what_two_micro_batches_on_one_do(tmp_path: Path) -> None:
    options = {"count": 96, "epochs": 2, "batch_size": 24, "double": True}
    two = run_equal(tmp_path / "2", 2, **options)
    alone = run_equal(tmp_path / "1", 1, **options, max_batch_size_per_worker=12)
    assert (two["origins"], alone["origins"]) == (["ranks"], ["micro-batches"])
    assert two["parts"] == alone["parts"] == [2] * 8
    assert two["small"] == pytest.approx(alone["small"], rel=1e-8)
    assert two["big"] == pytest.approx(alone["big"], rel=1e-8)


def _near(numbers: dict[str, Any]) -> dict[str, Any]:
    return {name: pytest.approx(value, rel=1e-6) for name, value in numbers.items()}


def test_numbers_ride_apart_from_gradients_too_coarse_for_them(tmp_path: Path) -> None:
    options = {"count": 64, "epochs": 1, "batch_size": 16, "half": True}
    two = run_equal(tmp_path, 2, **options)
    assert [facts["samples"] for facts in two["facts"]] == [16, 32, 48, 64]
    assert all(0.9 < loss < 1.4 for loss in two["losses"])
    assert all(number > 0.0 for number in two["small"])


def test_torchrun_starts_the_same_script() -> None:
    options = json.dumps({"count": 64, "epochs": 1, "batch_size": 16})
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
    ]
    done = subprocess.run(
        [*command, str(SCRIPTS / "equal.py"), options],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1])["workers"] == 2


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("raise", 'failed: KeyError: "a bug of the user\'s"'),
        ("die", "was killed by SIGKILL"),
        ("exit", "failed: exit code 7"),
    ],
)
def test_the_worker_at_fault_is_named_and_the_others_end(
    tmp_path: Path, what: str, told: str, who: int
) -> None:
    started = time.monotonic()
    with pytest.raises(StageError) as caught:
        run_script(SCRIPTS / "trouble.py", [what, str(who)], workers=2, folder=tmp_path)
    assert f"rank {who}" in str(caught.value)
    assert told in str(caught.value)
    assert time.monotonic() - started < 60
    assert not _alive(tmp_path)


def test_asking_to_stop_ends_all_workers_at_the_same_step(tmp_path: Path) -> None:
    lines: list[str] = []
    started = time.monotonic()

    def should_stop() -> bool:
        return (tmp_path / "records.jsonl").exists() and time.monotonic() - started > 1

    with pytest.raises(Interrupted):
        run_script(
            SCRIPTS / "trouble.py",
            ["slow", "0"],
            workers=2,
            folder=tmp_path,
            should_stop=should_stop,
            on_line=lines.append,
        )
    other = (tmp_path / "rank-1.log").read_text().strip().splitlines()
    assert lines[-1].startswith("ended at step")
    assert lines[-1].endswith("interrupted True")
    assert lines[-1] == other[-1]


def test_workers_end_when_their_launcher_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from workbench.adaptors.torch.launch import run_script; "
        f"run_script(pathlib.Path({str(SCRIPTS / 'trouble.py')!r}), ['slow', '0'], workers=2, "
        "folder=pathlib.Path(sys.argv[1]))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    spool = tmp_path / "records.jsonl"
    deadline = time.monotonic() + 60
    while not (spool.exists() and spool.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert spool.exists()
    launcher.kill()
    launcher.wait()
    while _alive(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(tmp_path)


def test_the_first_cause_is_told_not_its_consequences() -> None:
    reset = Failure(rank=0, kind="RuntimeError", message="Connection reset by peer", unix_time=1.0)
    bug = Failure(rank=1, kind="ValueError", message="a bug", unix_time=2.0)
    killed = Failure(rank=2, kind="SIGKILL", signal=9)
    assert _culprit([reset, bug]) is bug
    assert _culprit([reset, bug, killed]) is killed
    assert _culprit([reset]) is reset


def _alive(folder: Path) -> list[int]:
    """Return the processes that carry this job's folder in their environment."""
    mark = f"WB_FOLDER={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_the_last_word_of_a_script_that_leaves_is_told(tmp_path: Path) -> None:
    script = tmp_path / "leaves.py"
    script.write_text("import sys; sys.exit('give me data')")
    with pytest.raises(StageError, match="exit code 1: give me data"):
        run_script(script, workers=1, folder=tmp_path / "job")


def test_a_worker_whose_disk_is_full_tells_it_at_the_meeting_place(tmp_path: Path) -> None:
    # A link to nowhere stands where the error belongs: like a full disk, it takes no file.
    script = tmp_path / "full.py"
    script.write_text(
        "import os, pathlib\n"
        "from workbench.errors import InfrastructureError\n"
        "(pathlib.Path(os.environ['WB_FOLDER']) / 'rank-0.error.json').symlink_to('/proc/none/x')\n"
        "raise InfrastructureError('no space left; free some')\n"
    )
    with pytest.raises(InfrastructureError, match=r"^no space left; free some$"):
        run_script(script, workers=1, folder=tmp_path / "job")
