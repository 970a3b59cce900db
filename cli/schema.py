"""`wb schema`: the JSON Schema of a pipeline file, for editors and checks."""

from __future__ import annotations

import json

from .options import Debug


def schema(debug: Debug = False) -> int:
    """Print the JSON Schema of pipeline.yaml."""
    del debug
    from workbench.lifecycle import pipeline_schema

    print(json.dumps(pipeline_schema(), indent=2))
    return 0
