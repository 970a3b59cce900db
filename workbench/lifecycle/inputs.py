"""Link the data to a run, by the digest of their content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.records import MLflowStore

SPLIT_OF = {"training": "train", "evaluation": "test"}


def link_data(
    store: MLflowStore, run_id: str, pipeline: str, prepared: Mapping[str, Any], context: str
) -> None:
    """Note that a run used the prepared data.

    Args:
        store: The tracking server.
        run_id: The run.
        pipeline: The pipeline's name.
        prepared: Values of the prepare stage.
        context: ``training`` or ``evaluation`` for that split, else for all rows.
    """
    split = SPLIT_OF.get(context)
    rows = prepared["split"][split] if split else prepared["rows"]
    store.log_input(
        run_id,
        name=f"{pipeline}/{split}" if split else pipeline,
        digest=prepared["digest"],
        source=prepared["source"],
        context=context,
        schema=prepared["columns"],
        profile={"rows": rows, "classes": prepared["classes"]},
    )
