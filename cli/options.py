"""Options that several commands share, each told once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace", metavar="DIR", help="Where runs are kept [WB_WORKSPACE, or ./.workbench]."
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        help="An MLflow server instead of the workspace's own sqlite [MLFLOW_TRACKING_URI].",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
