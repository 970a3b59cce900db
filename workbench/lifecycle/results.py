"""Results of stages on disk: a folder a key, and ``result.json`` written last, so that it is whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import InfrastructureError

from .keys import StageKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """What a stage function returns; the runner records it.

    Attributes:
        values: Plain values for later stages and for ``--json``.
        summary: One line for people.
        metrics: Numbers for the stage's run.
        params: Fixed settings for the stage's run.
        tags: More tags for the stage's run.
        artifacts: Files of the stage's folder to keep with the run.
        refused: Why a gate refused, or empty.

    Example:
        >>> Produced(values={"rows": 3}, summary="3 rows").refused
        ''
    """

    values: Mapping[str, Any]
    summary: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A finished result found on disk.

    Attributes:
        key: The key it was made for.
        run_id: The run that made it.
        produced: What it made.
    """

    key: StageKey
    run_id: str
    produced: Produced


def stage_folder(workspace: Path, key: StageKey) -> Path:
    """Return the folder of a result, which may not exist.

    Example:
        >>> stage_folder(Path("w"), StageKey(stage="train", settings={}, inputs={}, code={})).parent
        PosixPath('w/stages/train')
    """
    return workspace / "stages" / key.stage / key.digest


def keep(folder: Path, key: StageKey, run_id: str, produced: Produced) -> None:
    """Write ``result.json`` into ``folder``, whole or not at all."""
    plain = {
        "key": key.plain(),
        "run_id": run_id,
        "values": dict(produced.values),
        "summary": produced.summary,
        "metrics": dict(produced.metrics),
        "params": dict(produced.params),
        "tags": dict(produced.tags),
        "artifacts": list(produced.artifacts),
        "refused": produced.refused,
    }
    write_json(folder / "result.json", plain)


def find_kept(folder: Path) -> Kept | None:
    """Return the finished result in ``folder``; ``None`` when there is none, or it is unreadable.

    Example:
        >>> find_kept(Path("/nowhere")) is None
        True
    """
    try:
        plain = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        key = StageKey(**plain.pop("key"))
        run_id = plain.pop("run_id")
        return Kept(
            key=key,
            run_id=run_id,
            produced=Produced(**{**plain, "artifacts": tuple(plain["artifacts"])}),
        )
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError, TypeError):
        return None  # not finished, or of another version: the stage runs


def latest_key(workspace: Path, stage: str) -> StageKey | None:
    """Return the key of the stage's newest finished result, to say what changed since."""
    results = list((workspace / "stages" / stage).glob("*/result.json"))
    newest = max(results, key=lambda file: file.stat().st_mtime_ns, default=None)
    kept = find_kept(newest.parent) if newest else None
    return kept.key if kept else None


def empty(folder: Path) -> None:
    """Make ``folder`` exist and be empty."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as strict JSON, atomically, and durably before it gets its name.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.json"; write_json(file, {"a": 1}); file.read_text()
        '{\\n  "a": 1\\n}'
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2, default=str, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path``; the system frees it when the process dies, however it dies.

    Raises:
        InfrastructureError: Another live process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise InfrastructureError(
                f"{what} is being worked on by process {stream.read().strip() or '?'}; "
                "wait for it to end, or use another --workspace"
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def is_held(path: Path) -> bool:
    """Return whether a live process holds the lock file ``path``.

    Example:
        >>> is_held(Path("/nowhere/lock"))
        False
    """
    try:
        with path.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
