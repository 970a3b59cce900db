"""What the lifecycle asks of the world: a framework that trains, and someone who watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workbench.record import Record

if TYPE_CHECKING:
    import numpy as np

SPOOL = "records.jsonl"  # a training's records, in the job's own folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A monitor or policy by name (``grow_with_noise`` or ``module:Class``) with its options.

    Example:
        >>> Part(name="grow_with_noise", options={"max_batch_size": 512}).name
        'grow_with_noise'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """How any process builds the untrained model: a callable, its options, where to import from.

    Example:
        >>> ModelSource(call="model:build").search_path
        ()
    """

    call: str
    options: Mapping[str, Any] = field(default_factory=dict)
    search_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOrder:
    """One training job, as plain data that a worker process reads from a JSON file.

    Attributes:
        model: How to build the model.
        inputs: ``.npy`` file of the training rows' inputs, shape ``(n, ...)``, float32 or int64.
        targets: ``.npy`` file, shape ``(n,)``: int64 classes, or float32 for regression.
        folder: The job's own folder: ``records.jsonl`` (the spool), ``checkpoint/``,
            ``weights.safetensors``, ``rank-N.log``.
        loss: ``cross_entropy``, ``binary_cross_entropy``, ``mse``, ``mae``, or ``module:function``
            of ``(outputs, targets)`` returning a mean over the batch.
        optimizer: Its name (``sgd``, ``adam``, ``adamw``) or ``module:Class``, with its options.
        scheduler: ``None``, or ``constant``, ``cosine`` or ``linear`` with ``warm_up`` (fraction of
            the job) and ``final`` (factor at the end); progress is counted in samples.
        batch_size: Global batch size at the start.
        epochs: Passes over the data.
        workers: Processes.
        seed: Of the permutation, the initial weights and dropout.
        learning_rate_rule: ``none``, ``linear`` or ``square_root``: how the rate follows the batch.
        max_batch_size_per_worker: Samples one worker holds at once; beyond, gradients accumulate.
        clip_grad_norm: Largest gradient norm, or ``None``.
        precision: ``float32``, ``bfloat16`` (autocast) or ``float16`` (autocast, gradient scaler).
        compile: Whether to use ``torch.compile``.
        monitors: Monitors to run.
        policies: Policies to follow, in order of precedence.
        limits: Options of :class:`workbench.arbiter.Limits`: bounds, hysteresis, cool-down.
        overhead: Largest share of a step's time that measuring may take.
        measure_every: Measure each so many-th step instead; 0: keep the budget.
        single_worker: How one worker's batch is taken apart: ``auto``, ``per-example``, ``split`` or
            ``none``.
        checkpoint_seconds: At least this many seconds between two checkpoints.
    """

    model: ModelSource
    inputs: str
    targets: str
    folder: str
    loss: str = "cross_entropy"
    optimizer: Part = field(default_factory=lambda: Part(name="adamw", options={"lr": 1e-3}))
    scheduler: Part | None = None
    batch_size: int = 64
    epochs: int = 1
    workers: int = 1
    seed: int = 0
    learning_rate_rule: str = "none"
    max_batch_size_per_worker: int | None = None
    clip_grad_norm: float | None = None
    precision: str = "float32"
    compile: bool = False
    monitors: tuple[Part, ...] = ()
    policies: tuple[Part, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    overhead: float = 0.005
    measure_every: int = 0
    single_worker: str = "auto"
    checkpoint_seconds: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training job left behind.

    Attributes:
        weights: ``weights.safetensors``.
        records: The spool, one JSON record a line.
        steps: Optimizer steps taken in all, earlier runs of the same job included.
        samples: Samples shown in all.
        stopped: Why it ended early (a policy's ``Stop``), or empty.
    """

    weights: Path
    records: Path
    steps: int
    samples: int
    stopped: str = ""


class Framework(Protocol):
    """A framework's adaptor as the lifecycle sees it."""

    def train(
        self,
        order: TrainOrder,
        *,
        resume: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Trained:
        """Train in ``order.workers`` processes; block until done.

        With ``resume``, go on from the checkpoint in ``order.folder`` if there is one. When
        ``should_stop`` turns true the workers finish their step, save a checkpoint and end.

        Raises:
            NonFiniteError: Loss or gradient became NaN or infinite.
            StageError: A worker failed; the message holds its rank and its own last line.
            ConfigurationError: A callable, loss, optimizer or policy does not exist, or the model
                returned a shape that the loss cannot take.
            Interrupted: ``should_stop`` turned true.
        """
        ...

    def predict(self, model: ModelSource, weights: Path, inputs: np.ndarray) -> np.ndarray:
        """Return the model's raw outputs (logits for classes), shape ``(n, ...)``, float32."""
        ...

    def build(self, model: ModelSource, weights: Path) -> Any:
        """Return the trained module, in evaluation mode, on the CPU."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """How one stage ended.

    Attributes:
        name: ``prepare`` ... ``deploy``.
        status: ``done``, ``reused``, ``failed``, ``refused`` (a gate), ``skipped``
            or ``interrupted``.
        seconds: Wall-clock seconds.
        run_id: Its nested MLflow run.
        reused_from: The run whose result was taken, or empty.
        summary: One line for people, such as ``1,797 rows, 64 features``.
        values: The stage's result as plain values, for later stages and ``--json``.
    """

    name: str
    status: str
    seconds: float = 0.0
    run_id: str = ""
    reused_from: str = ""
    summary: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineResult:
    """What ``wb run`` prints at the end.

    Attributes:
        run_id: The parent MLflow run.
        run_name: Its name.
        pipeline: The pipeline's name.
        status: ``done``, ``failed``, ``refused``, ``interrupted``.
        exit_code: 0, 1, 2, 3, 4 or 130.
        message: The one clear line of the failure, or empty.
        stages: In order.
        metrics: Of the evaluate stage.
        decisions: Records whose decision is not ``Keep``.
        verdict: Of the audit: ``pass``, ``fail``, ``not enough evidence``, or empty.
        gates: Each gate's sentence.
        model: Registered name, or empty.
        version: Registered version, or empty.
        alias: Alias given, or empty.
    """

    run_id: str
    run_name: str
    pipeline: str
    status: str
    exit_code: int = 0
    message: str = ""
    stages: tuple[StageResult, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    decisions: tuple[Record, ...] = ()
    verdict: str = ""
    gates: tuple[str, ...] = ()
    model: str = ""
    version: str = ""
    alias: str = ""


class Watcher(Protocol):
    """Someone who watches a pipeline; a live view, plain lines, or a test."""

    def pipeline_started(self, name: str, run_id: str, run_name: str) -> None:
        """Hear that the parent run exists."""
        ...

    def stage_started(self, name: str) -> None:
        """Hear that a stage begins."""
        ...

    def stage_ended(self, result: StageResult) -> None:
        """Hear how a stage ended."""
        ...

    def training(self, record: Record, samples_total: int, epochs: int) -> None:
        """Hear of a training step (of all samples that the job will show, and its epochs)."""
        ...

    def note(self, message: str) -> None:
        """Hear one line that is worth showing (a server is down, a policy was disabled)."""
        ...
