"""Log a PyTorch model so that any process can score with it, without pickle."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench._version import __version__
from workbench.errors import InfrastructureError, StageError

from .digests import folder_digest
from .mlflow_client import mlflow_module, talking, without_warnings
from .mlflow_store import MLflowStore
from .rebuilt_model import RECIPE_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    import numpy.typing as npt
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from torch import nn

_PICKLES = {".pkl", ".pickle", ".pth", ".pt", ".joblib", ".bin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """How to build the model again before its weights are read.

    Attributes:
        call: ``package.module:function``, which returns the module.
        arguments: Keyword arguments of plain JSON types.
        code_paths: Files or folders that ``call`` needs and a fresh process would not find.

    Example:
        >>> Rebuild(call="examples.income.model:build").arguments
        {}
    """

    call: str
    arguments: dict[str, Any] = field(default_factory=dict)
    code_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTorchModel:
    """A model as it was logged.

    Attributes:
        model_id: MLflow's identifier.
        uri: Address that MLflow takes, ``models:/m-...``.
        run_id: Run that made it.
        format: ``pt2`` (a graph by ``torch.export``) or ``safetensors`` (weights and a recipe).
        why_not_pt2: Why the graph was not used; empty with ``pt2``.
        digest: Digest of its files.
        size_bytes: Of its files.

    Example:
        >>> LoggedTorchModel(model_id="m-1", uri="models:/m-1", run_id="", format="pt2",
        ...                  digest="", size_bytes=0).why_not_pt2
        ''
    """

    model_id: str
    uri: str
    run_id: str
    format: str
    digest: str
    size_bytes: int
    why_not_pt2: str = ""


def log_torch_model(
    store: MLflowStore,
    run_id: str,
    model: nn.Module,
    example: npt.NDArray[Any],
    name: str,
    *,
    rebuild: Rebuild | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    step: int = 0,
    tolerance: float = 1e-4,
) -> LoggedTorchModel:
    """Log a model with its signature and an example; it takes any number of rows.

    The model is exported as a graph (``pt2``), read back, and compared with the model itself on 1,
    2, 3 and all example rows. When it cannot be exported, or differs, its weights are saved as
    safetensors with the recipe ``rebuild``, and ``why_not_pt2`` says why. The model given is left
    as it is; wrappers (``torch.compile``, distributed) are taken off.

    Args:
        store: The tracking server.
        run_id: Run that made the model.
        model: Takes one tensor and returns one, both with a row for each sample.
        example: Input rows, 1 or more, in the type that the model takes.
        name: Of the model in MLflow.
        rebuild: How to build it again, should the export fail.
        tags: Noted with the model.
        params: Noted with the model.
        step: Step of the run after which it is logged.
        tolerance: Largest difference allowed between the model and what was saved.

    Raises:
        StageError: The model returns something else than one tensor with a row for each sample, or
            can neither be exported nor rebuilt.
        InfrastructureError: The tracking server or the disk failed.

    Example:
        >>> import numpy, torch
        >>> store = MLflowStore(".", tracking_uri="http://127.0.0.1:5000")
        >>> log_torch_model(store, "a1b2", torch.nn.Linear(4, 2), numpy.zeros((0, 4)), "linear")
        Traceback (most recent call last):
        workbench.errors.StageError: the example has shape (0, 4) and type float64; give 1 or ...
    """
    plain = unwrapped(model)
    rows = _rows(example)
    expected = _scores(plain, rows)
    signature = _signature(rows, expected)
    client = store.client
    with talking(store.tracking_uri, f"logging model {name}"):
        logged = client.create_logged_model(
            store.experiment_id,
            name=name,
            source_run_id=run_id,
            tags={key: str(value) for key, value in (tags or {}).items()},
            params={key: str(value) for key, value in (params or {}).items()},
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            card = _card(logged.artifact_location, run_id, logged.model_id)
            why_not = _save_graph(path, plain, rows, signature, card, tolerance)
            if why_not:
                card = _card(logged.artifact_location, run_id, logged.model_id)
                _save_weights(path, plain, rows, signature, card, rebuild, why_not)
                _compare_weights(path, plain, rows, tolerance)
            _refuse_pickles(path)
            digest = folder_digest(path)
            size = sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
            with talking(store.tracking_uri, f"logging model {name}"):
                _keep(client, logged.model_id, run_id, path, step)
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    return LoggedTorchModel(
        model_id=logged.model_id,
        uri=f"models:/{logged.model_id}",
        run_id=run_id,
        format="safetensors" if why_not else "pt2",
        why_not_pt2=why_not,
        digest=digest,
        size_bytes=size,
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """Return a copy on the CPU, in evaluation mode, without wrappers of torch.

    Example:
        >>> import torch
        >>> unwrapped(torch.compile(torch.nn.Linear(2, 2), backend="eager"))
        Linear(in_features=2, out_features=2, bias=True)
    """
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    plain: nn.Module = getattr(model, "_orig_mod", model)
    if isinstance(plain, (DataParallel, DistributedDataParallel)):
        plain = plain.module
    plain = getattr(plain, "_orig_mod", plain)
    return copy.deepcopy(plain).cpu().eval()


def _rows(example: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import numpy as np

    rows = np.ascontiguousarray(example)
    if rows.ndim < 1 or len(rows) == 0 or rows.dtype.kind not in "fiub":
        raise StageError(
            f"the example has shape {rows.shape} and type {rows.dtype}; give 1 or more rows of "
            "numbers",
            stage="register",
        )
    # torch.export takes a dimension of size 1 for a constant.
    return np.repeat(rows, 2, axis=0) if len(rows) == 1 else rows


def _scores(model: Any, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import torch

    with torch.no_grad():
        scores = model(torch.from_numpy(rows))
    if not isinstance(scores, torch.Tensor) or scores.ndim < 1 or len(scores) != len(rows):
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise StageError(
            f"the model returns {got} for {len(rows)} rows; return one tensor with a row for each "
            "sample",
            stage="register",
        )
    array: npt.NDArray[Any] = scores.numpy()
    return array


def _signature(rows: npt.NDArray[Any], scores: npt.NDArray[Any]) -> ModelSignature:
    mlflow_module()
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(rows.dtype, (-1, *rows.shape[1:]))]),
        outputs=Schema([TensorSpec(scores.dtype, (-1, *scores.shape[1:]))]),
    )


def _card(location: str, run_id: str, model_id: str) -> Model:
    from mlflow.models import Model

    return Model(artifact_path=location, run_id=run_id, model_uuid=model_id, model_id=model_id)


def _save_graph(
    path: Path,
    model: nn.Module,
    rows: npt.NDArray[Any],
    signature: ModelSignature,
    card: Model,
    tolerance: float,
) -> str:
    """Save as ``pt2``; return why that is not possible, or an empty text."""
    import torch

    try:
        with without_warnings():
            import mlflow.pytorch

            mlflow.pytorch.save_model(
                model,
                str(path),
                mlflow_model=card,
                signature=signature,
                input_example=rows,
                pip_requirements=_requirements("torch", "numpy"),
                serialization_format="pt2",
            )
            graph = torch.export.load(path / "data" / "model.pt2").module()
        _compare(graph, model, rows, tolerance)
    except OSError as error:
        raise InfrastructureError(
            f"the model cannot be written to {path}: {error.strerror}; free space there or set "
            "TMPDIR to another folder"
        ) from error
    except Exception as error:  # torch.export raises errors of many kinds
        shutil.rmtree(path, ignore_errors=True)
        return _first_line(error)
    _score_on_cpu(path, card)
    return ""


def _save_weights(
    path: Path,
    model: nn.Module,
    rows: npt.NDArray[Any],
    signature: ModelSignature,
    card: Model,
    rebuild: Rebuild | None,
    why_not: str,
) -> None:
    """Save as safetensors beside the recipe that builds the model."""
    if rebuild is None:
        raise StageError(
            f"the model cannot be exported ({why_not}) and there is no recipe to build it again; "
            "give the model as module:function, or change it so that torch.export takes it",
            stage="register",
        )
    from safetensors.torch import save_model

    with without_warnings():
        import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        save_model(model, str(data / WEIGHTS_FILE))
        recipe = {"call": rebuild.call, "arguments": rebuild.arguments}
        (data / RECIPE_FILE).write_text(json.dumps(recipe, indent=2))
        with without_warnings():
            mlflow.pyfunc.save_model(
                str(path),
                loader_module="workbench.records.rebuilt_model",
                data_path=str(data),
                code_paths=list(rebuild.code_paths) or None,
                mlflow_model=card,
                signature=signature,
                input_example=rows,
                pip_requirements=[
                    *_requirements("torch", "numpy", "safetensors"),
                    f"adaptive-workbench=={__version__}",
                ],
            )


def _compare_weights(
    path: Path, model: nn.Module, rows: npt.NDArray[Any], tolerance: float
) -> None:
    from .rebuilt_model import load_rebuilt

    data = next(path.rglob(RECIPE_FILE)).parent
    _compare(load_rebuilt(data), model, rows, tolerance)


def _compare(saved: Any, model: Any, rows: npt.NDArray[Any], tolerance: float) -> None:
    import numpy as np

    for some in (rows[:1], rows[:2], np.concatenate([rows, rows])[:3], rows):
        found, expected = _scores(saved, some), _scores(model, some)
        if not np.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
            difference = float(np.max(np.abs(found - expected)))
            raise StageError(
                f"what was saved scores {len(some)} rows differently, by up to {difference:.3g}; "
                f"allowed: {tolerance:g}; does the model draw random numbers in eval()?",
                stage="register",
            )


def _score_on_cpu(path: Path, card: Model) -> None:
    # The graph was exported on the CPU: without this, MLflow loads it on the GPU of a machine that
    # has one, and refuses.
    card.flavors["python_function"]["config"] = {"device": "cpu"}
    card.save(str(path / "MLmodel"))


def _refuse_pickles(path: Path) -> None:
    found = [item.name for item in path.rglob("*") if item.suffix in _PICKLES]
    if found:
        raise StageError(f"the model would be saved with {found[0]}, a pickle", stage="register")


def _keep(client: Any, model_id: str, run_id: str, path: Path, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    client.log_model_artifacts(model_id, str(path))
    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=step)])


def _requirements(*packages: str) -> list[str]:
    # Named, so that MLflow does not load the model in another process to guess them. A local
    # version such as 2.6.0+cpu names the same release, and no index knows it.
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in ("mlflow", *packages)]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
