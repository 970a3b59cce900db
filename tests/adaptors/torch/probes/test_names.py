"""The names of the probes, and how little their import asks for."""

from __future__ import annotations

import subprocess
import sys

from workbench.adaptors.torch import probes


def test_the_exported_names_are_these_and_all_are_there() -> None:
    names = ["Comparison", "CriticalBatch", "Sharpness", "critical_batch", "sharpness"]
    assert sorted(probes.__all__) == names
    assert [name for name in names if not callable(getattr(probes, name))] == []


def test_probes_need_torch_and_the_standard_library_only() -> None:
    blocked = ("pydantic", "mlflow", "typer", "pandas", "sklearn", "scipy", "matplotlib", "yaml")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); "
        "import workbench.adaptors.torch.probes"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
