"""Find the run that a user means: an id, the start of one, a name, or `latest`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workbench.errors import UsageError

if TYPE_CHECKING:
    from workbench.records.mlflow_store import MLflowStore
    from workbench.records.stored import StoredRun

LATEST = "latest"
_TOP_LEVEL = ("pipeline", "script")
_NAMED = 6  # runs that an error names
_ID = re.compile(r"[0-9a-f]{32}")


def find_run(store: MLflowStore, wanted: str = LATEST) -> StoredRun:
    """Return the run.

    Args:
        store: Where to look.
        wanted: ``latest``, a run's name (the newest of that name), an id, or the start of one.

    Raises:
        UsageError: There is no such run; the message names those there are.
    """
    known = recent_runs(store)
    if wanted == LATEST and known:
        return known[0]
    for run in known:
        if wanted == run.name:
            return run
    if _ID.fullmatch(wanted):
        return store.get_run(wanted)  # any run, a stage's too
    started = [run for run in known if len(wanted) >= 4 and run.run_id.startswith(wanted)]
    if len(started) == 1:
        return started[0]
    named = store.find_runs(name=wanted, most=1)
    if named:
        return named[0]
    there = ", ".join(run.name for run in known[:_NAMED]) or "none yet; start with 'wb run'"
    raise UsageError(
        f"there is no run {wanted!r}; the last runs: {there}; give a name, id or latest"
    )


def recent_runs(store: MLflowStore) -> list[StoredRun]:
    """Return the pipelines' and scripts' runs, the newest first."""
    found = [run for kind in _TOP_LEVEL for run in store.find_runs(tags={"wb.kind": kind})]
    return sorted(found, key=lambda run: run.started_unix, reverse=True)


def address_of(store: MLflowStore, run: StoredRun) -> str:
    """Return the run's address inside MLflow's UI."""
    from workbench.lifecycle.note import run_address

    return run_address(store.experiment_id, run.run_id)
