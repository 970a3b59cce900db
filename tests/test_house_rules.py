"""The rules of the house that a machine can check: cycles, the environment, sentences, assertions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent

ENVIRONMENT = {
    "adaptors/torch/contract.py": "the launch contract, as a worker reads it",
    "adaptors/torch/launch.py": "hands the parent's environment down to workers",
    "cli/watching.py": "TERM: whether the terminal can draw",
    "cli/workspace.py": "WB_WORKSPACE and MLFLOW_TRACKING_URI",
    "lifecycle/score_check.py": "hands the parent's environment down to the scoring process",
    "records/mlflow_client.py": "settings that MLflow takes from its environment alone",
    "records/mlflow_decisions.py": "MLflow's artifact client takes its server from there alone",
    "records/provenance.py": "hands the parent's environment down to git and pip",
}
"""Every file that touches ``os.environ``, and why; a new one needs a reason of this kind."""


def _package() -> Path:
    spec = find_spec("workbench")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


PACKAGE = _package()


def _files(folder: Path) -> Iterator[Path]:
    """Yield the Python files of a folder, through links."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        elif path.suffix == ".py":
            yield path


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


SOURCES = {_module(path): path for path in _files(PACKAGE)}
TEST_FILES = list(_files(TESTS))


# No import cycles ----------------------------------------------------------------------------------


def _at_import_time(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when the module is imported."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _at_import_time(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _at_import_time(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _at_import_time(handler.body)


def _named(module: str, path: Path, node: ast.Import | ast.ImportFrom) -> set[str]:
    """Return the modules of the workbench that one import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & SOURCES.keys()
    start = node.module or ""
    if node.level:
        home = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        home = home[: len(home) - node.level + 1]
        start = ".".join([*home, start]).rstrip(".")
    submodules = {f"{start}.{alias.name}" for alias in node.names} & SOURCES.keys()
    return submodules or ({start} & SOURCES.keys())


def imports_of(module: str) -> set[str]:
    path = SOURCES[module]
    found: set[str] = set()
    for node in _at_import_time(_tree(path).body):
        found |= _named(module, path, node)
    return found


def test_the_graph_of_imports_is_that_of_the_tree() -> None:
    assert imports_of("workbench.record") == {
        "workbench.decision",
        "workbench.facts",
        "workbench.signal",
    }
    assert "workbench.policies.schedule" in imports_of("workbench.policies")
    assert "workbench.engine" in imports_of("workbench.adaptors.torch.job")
    assert imports_of("workbench.adaptors.torch") == set(), "its names load when they are used"


def test_no_two_modules_import_each_other_however_far_around() -> None:
    graph = {module: imports_of(module) - {module} for module in SOURCES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(order) == set(SOURCES)


def test_nobody_imports_the_examples() -> None:
    outside = [module for module in SOURCES if not module.startswith("workbench.examples")]
    wrong = [
        f"{module}: {ast.unparse(node)}"
        for module in outside
        for node in ast.walk(_tree(SOURCES[module]))
        if isinstance(node, ast.Import | ast.ImportFrom)
        if any(name.split(".")[0] == "examples" for name in _absolute(node))
        or any(name.startswith("workbench.examples") for name in _absolute(node))
    ]
    assert wrong == []


def _absolute(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level:
        return []
    return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]


# One place reads the environment -------------------------------------------------------------------


def _touches_environment(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
            if node.attr in {"environ", "environb", "getenv", "putenv", "unsetenv"}:
                return True
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names}
            if names & {"environ", "environb", "getenv", "putenv", "unsetenv", "*"}:
                return True
    return False


def test_the_environment_is_touched_in_the_files_listed_here_and_nowhere_else() -> None:
    touching = {
        path.relative_to(PACKAGE).as_posix()
        for path in SOURCES.values()
        if _touches_environment(_tree(path))
    }
    assert touching == set(ENVIRONMENT)


@pytest.mark.parametrize(
    "code", ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ"]
)
def test_every_way_to_the_environment_is_seen(code: str) -> None:
    assert _touches_environment(ast.parse(code))


# Two lines in a training script need torch and the standard library alone ---------------------------

FIVE_STEPS = '''
import builtins, sys

allowed = sys.stdlib_module_names | {"torch", "workbench"}
real = builtins.__import__

def watched(name, globals=None, locals=None, fromlist=(), level=0):
    """Refuse what a module of the workbench imports beyond torch, even when torch has loaded it."""
    importer = (globals or {}).get("__name__", "")
    if importer.split(".")[0] == "workbench" and level == 0:
        if name.split(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{importer} imports {name}", name=name)
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = watched
for name in ("pydantic", "mlflow", "typer", "fairlearn", "pandas", "rich", "yaml", "safetensors",
             "pyarrow", "sklearn", "scipy", "pandera", "psutil"):
    sys.modules[name] = None

import workbench, workbench.monitors, workbench.policies, workbench.tracing
import torch
from workbench.adaptors.torch import attach
from workbench.policies import GrowWithNoise, Schedule

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
dataset = torch.utils.data.TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
policies = [GrowWithNoise(max_batch_size=32), Schedule(at={3: 16})]
job = attach(model, optimizer, dataset, batch_size=8, policies=policies, measure_every=1)
for epoch in job.epochs(1):
    for inputs, targets in epoch:
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        job.observe(loss=loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
saved = job.state_dict()
job.close()
print(job.step, job.samples, job.batch_size, list(job.signals))
'''


def _alone(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "", "WB_FOLDER": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )


def test_a_training_in_two_lines_runs_on_torch_and_the_standard_library(tmp_path: Path) -> None:
    done = _alone(FIVE_STEPS, tmp_path)
    assert done.returncode == 0, done.stderr
    signals = "['noise_scale', 'gradient_variance', 'gradient_norm', 'loss', 'throughput']"
    assert done.stdout.strip() == f"6 60 16 {signals}"
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) >= 6


def test_the_watch_over_imports_sees_a_module_that_torch_has_loaded(tmp_path: Path) -> None:
    probe = "\nexec('import numpy', {'__name__': 'workbench.probe'})"
    done = _alone(FIVE_STEPS + probe, tmp_path)
    assert done.returncode == 1
    assert "workbench.probe imports numpy" in done.stderr


# Files that read well ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [*SOURCES.values(), *TEST_FILES],
    ids=lambda path: "/".join(path.parts[-3:]),
)
def test_the_first_line_of_a_file_is_its_sentence(path: Path) -> None:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    sentence = first.removeprefix('"""').removesuffix('"""')
    assert first.startswith('"""'), first
    assert sentence.endswith((".", ":", "?")), first
    assert len(sentence.split()) >= 3, first


# Tests that test -----------------------------------------------------------------------------------

CHECKS = ("assert_", "check_", "raises", "warns", "fail", "deprecated_call")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.AST) -> dict[str, Function]:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, Function)}


def asserts(function: Function, beside: dict[str, Function], seen: tuple[str, ...] = ()) -> bool:
    """Return whether a function asserts, itself or through a function of its own file."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Raise) and node.exc and "AssertionError" in ast.unparse(node.exc):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1].startswith(CHECKS):
            return True
    named = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    helpers = (named & beside.keys()) - set(seen)
    return any(asserts(beside[name], beside, (*seen, name)) for name in helpers)


@pytest.mark.parametrize(
    "path",
    [path for path in TEST_FILES if path.name.startswith("test_")],
    ids=lambda path: "/".join(path.parts[-3:]),
)
def test_every_test_asserts_something(path: Path) -> None:
    functions = _functions(_tree(path))
    tests = [name for name in functions if name.startswith("test_")]
    idle = [name for name in tests if not asserts(functions[name], functions, (name,))]
    assert tests, "a file of tests without a test"
    assert idle == []


def test_a_test_that_asserts_nothing_is_found() -> None:
    code = "def helper():\n    run()\ndef test_idle():\n    helper()\n"
    functions = _functions(ast.parse(code))
    assert not asserts(functions["test_idle"], functions)
    functions = _functions(ast.parse(code.replace("run()", "assert run()")))
    assert asserts(functions["test_idle"], functions)
