"""Strict JSON, and a stdout that only the result may use."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.cli.output import strict
from workbench.cli.summary import result_json
from workbench.lifecycle.ports import PipelineResult, StageResult
from workbench.record import Record

anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def _refuse(token: str) -> None:
    raise AssertionError(f"{token} is not JSON")


@settings(deadline=None, max_examples=200)
@given(value=anything)
def test_whatever_a_stage_returns_becomes_json_that_any_parser_takes(value: Any) -> None:
    text = json.dumps(strict({"value": value}), allow_nan=False)
    json.loads(text, parse_constant=_refuse)


def test_numpy_numbers_are_numbers() -> None:
    found = strict({"a": np.float32(0.5), "b": np.int64(3), "c": np.float64("nan")})
    assert found == {"a": 0.5, "b": 3, "c": None}


def test_a_result_with_nan_everywhere_is_strict_json(growth: list[Record]) -> None:
    nan = float("nan")
    result = PipelineResult(
        run_id="r",
        run_name="n",
        pipeline="p",
        status="failed",
        metrics={"loss": nan},
        stages=(StageResult(name="train", status="failed", seconds=nan, values={"x": (nan,)}),),
        decisions=tuple(growth[1:3]),
    )
    plain = json.loads(json.dumps(strict(result_json(result)), allow_nan=False))
    assert plain["metrics"] == {"loss": None}
    assert plain["decisions"][0]["after"] == "128"
    assert plain["decisions"][0]["because"][0]["low"] == 640.0


def test_what_others_print_goes_to_stderr_child_processes_included() -> None:
    program = """
import os, subprocess, sys
from workbench.cli.output import only_the_result_on_stdout, print_json
with only_the_result_on_stdout(True):
    print("chatter")
    os.system("echo from a child")
    os.write(1, b"from C\\n")
print_json({"a": 1})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == '{"a": 1}\n'
    for words in ("chatter", "from a child", "from C"):
        assert words in done.stderr
