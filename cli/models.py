"""`wb models`: registered models, their versions and aliases."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .options import Debug, Json, TrackingUri, Workspace
from .output import print_json
from .workspace import open_store, place_from

if TYPE_CHECKING:
    from workbench.records.stored import StoredVersion


def models(
    as_json: Json = False,
    workspace: Workspace = None,
    tracking_uri: TrackingUri = None,
    debug: Debug = False,
) -> int:
    """List registered models, their versions and aliases."""
    del debug
    place = place_from(workspace, tracking_uri)
    store = open_store(place, to_read=True)
    versions = [version for name in store.models() for version in store.versions(name)]
    if as_json:
        print_json({"models": [_plain(version) for version in versions]})
        return 0
    if not versions:
        print("no model is registered yet; a pipeline with register: {model: NAME} does it")
        return 0
    _print(versions)
    return 0


def _print(versions: list[StoredVersion]) -> None:
    from .summary import console_for_result, new_table

    table = new_table("", "model", "version", "alias", "registered", "run")
    for version in versions:
        table.add_row(
            version.name,
            str(version.version),
            ", ".join(f"@{alias}" for alias in version.aliases),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created_unix)),
            version.run_id,
        )
    console_for_result().print(table)


def _plain(version: StoredVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "created_unix": version.created_unix,
        "run_id": version.run_id,
        "uri": version.uri,
        "tags": version.tags,
    }
