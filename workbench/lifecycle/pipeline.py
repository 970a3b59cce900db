"""A pipeline as a value: every setting with its type, its bounds and its default."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from workbench.arbiter import Limits
from workbench.errors import ConfigurationError
from workbench.sampling import parse_share

from .ports import Part

METRICS_OF_CLASSES = (
    "accuracy", "balanced_accuracy", "f1", "precision", "recall", "roc_auc", "log_loss",
)  # fmt: skip
METRICS_OF_NUMBERS = ("mae", "mse", "rmse", "r2")
STAGES = ("prepare", "contract", "train", "evaluate", "audit", "register", "deploy")

MetricName = Literal[
    "accuracy", "balanced_accuracy", "f1", "precision", "recall", "roc_auc", "log_loss",
    "mae", "mse", "rmse", "r2",
]  # fmt: skip


def _call(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", value):
        raise ValueError('a callable is written "module:function", such as "prepare:load"')
    return value


def _parts(value: list[str | dict[str, dict[str, Any] | None]]) -> list[Any]:
    for item in value:
        if isinstance(item, dict) and len(item) != 1:
            raise ValueError(
                f"an entry is a name, or one name with its options, got {len(item)} names: "
                f"{', '.join(sorted(item))}; write each as its own entry of the list"
            )
    return value


def _workers(value: int | str) -> int | str:
    low, high = workers_range(value)
    if not 1 <= low <= high:
        raise ValueError("workers is a number from 1, or MIN:MAX with 1 <= MIN <= MAX")
    return value


def _registry_name(value: str) -> str:
    if not re.fullmatch(r"[\w][\w .-]*", value):
        raise ValueError("a name holds letters, digits, spaces, dots, dashes and underscores")
    return value


def _alias_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError("an alias holds letters, digits, dashes and underscores")
    if re.fullmatch(r"latest|v\d+", value, re.IGNORECASE):
        raise ValueError("'latest' and 'v1', 'v2', ... are MLflow's own; choose another")
    return value


def workers_range(workers: int | str) -> tuple[int, int]:
    """Return the smallest and largest number of workers that ``workers`` allows.

    Raises:
        ValueError: ``workers`` is neither a number nor ``MIN:MAX``.

    Example:
        >>> workers_range(2), workers_range("2"), workers_range("1:4")
        ((2, 2), (2, 2), (1, 4))
    """
    if not re.fullmatch(r"\d+(:\d+)?", str(workers)):
        raise ValueError("workers is a number from 1, or MIN:MAX with 1 <= MIN <= MAX")
    low, _, high = str(workers).partition(":")
    return int(low), int(high or low)


def _share(value: float | str) -> float:
    try:
        return parse_share(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


Call = Annotated[str, AfterValidator(_call)]
Parts = Annotated[list[str | dict[str, dict[str, Any] | None]], AfterValidator(_parts)]
RegistryName = Annotated[str, Field(min_length=1), AfterValidator(_registry_name)]
AliasName = Annotated[str, Field(min_length=1), AfterValidator(_alias_name)]


class Settings(BaseModel):
    """Base of all settings: frozen, and no unknown key passes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitSettings(Settings):
    """How rows are divided when the prepare call does not divide them itself.

    ``held_back`` rows are neither trained on nor tested on: the deploy stage scores them.
    """

    test: float = Field(default=0.2, gt=0, lt=1, description="share of the rows in the test split")
    held_back: float = Field(
        default=0.02, ge=0, lt=1, description="share kept for the deploy check"
    )
    seed: int = Field(default=0, ge=0)
    stratify: bool = Field(default=True, description="keep the classes' shares in every split")

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> SplitSettings:
        if self.test + self.held_back >= 1:
            raise ValueError("test + held_back must be below 1, or no row is left to train on")
        return self


class PrepareSettings(BaseModel):
    """The prepare stage: a callable that returns ``Prepared``; every other key goes to it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    call: Call
    split: SplitSettings = Field(default_factory=lambda: SplitSettings.model_validate({}))

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        return dict(self.model_extra or {})


class ColumnSettings(Settings):
    """What one column of the table must hold."""

    type: Literal["int", "float", "number", "str", "bool"] | None = None
    min: float | None = None
    max: float | None = None
    values: list[Any] | None = None
    nullable: bool = False
    unique: bool = False

    @model_validator(mode="after")
    def _possible(self) -> ColumnSettings:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        if self.values is not None and not self.values:
            raise ValueError("values is empty: no value would be allowed")
        return self


class ContractSettings(Settings):
    """The contract stage: what the prepared table must look like."""

    columns: dict[str, ColumnSettings] = Field(default_factory=dict)
    min_rows: int = Field(default=1, ge=1)
    only_these_columns: bool = False


class OptimizerSettings(BaseModel):
    """An optimizer or scheduler by name; every other key is one of its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(min_length=1)

    def part(self) -> Part:
        """Return name and options as the framework takes them."""
        return Part(name=self.name, options=dict(self.model_extra or {}))


def _default_monitors() -> list[str | dict[str, dict[str, Any] | None]]:
    return ["noise_scale", "gradient_norm", "throughput"]


class LimitsSettings(Settings):
    """What no policy may pass; what is left out has the arbiter's own default."""

    min_batch_size: int | None = Field(default=None, ge=1)
    max_batch_size: int | None = Field(default=None, ge=1)
    min_change: float | None = Field(default=None, ge=1)
    max_change: float | None = Field(default=None, ge=1)
    cool_down_steps: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> LimitsSettings:
        try:
            Limits(**self.given())
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return self

    def given(self) -> dict[str, Any]:
        """Return the options of ``Limits`` that were given."""
        return self.model_dump(exclude_none=True)


class TrainSettings(Settings):
    """The train stage."""

    model: Call
    model_options: dict[str, Any] = Field(default_factory=dict)
    loss: str = "cross_entropy"
    optimizer: OptimizerSettings = OptimizerSettings.model_validate({"name": "adamw", "lr": 1e-3})
    scheduler: OptimizerSettings | None = None
    batch_size: int = Field(default=64, ge=1, description="global batch size at the start")
    epochs: int = Field(default=1, ge=1)
    workers: Annotated[int | str, AfterValidator(_workers)] = 1
    seed: int = Field(default=0, ge=0)
    learning_rate_rule: Literal["none", "linear", "square_root"] = "none"
    max_batch_size_per_worker: int | None = Field(default=None, ge=1)
    clip_grad_norm: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    monitors: Parts = Field(default_factory=_default_monitors)
    policies: Parts = Field(default_factory=list)
    limits: LimitsSettings = Field(default_factory=lambda: LimitsSettings())
    overhead: Annotated[float, BeforeValidator(_share)] = Field(default=0.005, gt=0, le=1)
    measure_every: int = Field(default=0, ge=0)
    single_worker: Literal["auto", "per-example", "split", "none"] = "auto"
    checkpoint_seconds: float = Field(default=10.0, ge=0)


class EvaluateSettings(Settings):
    """The evaluate stage; without metrics, those usual for the task."""

    metrics: list[MetricName] = Field(default_factory=list)


class GateSettings(Settings):
    """A bound on an audit metric; outside it nothing is deployed.

    Without ``attribute`` it holds for each single attribute of the audit. ``on_not_enough`` says
    what to do when the sample cannot decide: ``refuse``, or ``warn`` and deploy.
    """

    metric: str
    max: float | None = None
    min: float | None = None
    attribute: str | None = None
    on_not_enough: Literal["refuse", "warn"] = "refuse"
    min_count: int = Field(default=0, ge=0, description="leave out groups with fewer cases")

    @model_validator(mode="after")
    def _has_one_bound(self) -> GateSettings:
        if (self.max is None) == (self.min is None):
            raise ValueError(f"gate {self.metric} needs max or min, one of them")
        return self


class AuditSettings(Settings):
    """The audit stage: attributes whose groups are compared, and the gates on the gaps.

    ``positive`` is the class counted as positive, ``depth`` how many attributes are combined,
    ``names`` what the report calls a code, such as ``{SEX: {1: male, 2: female}}``.
    """

    attributes: list[str] = Field(min_length=1)
    names: dict[str, dict[int | str, str]] = Field(default_factory=dict)
    gates: list[GateSettings] = Field(default_factory=list)
    positive: Any = None
    depth: int = Field(default=3, ge=1, description="intersections of up to so many attributes")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="confidence of intervals")

    @model_validator(mode="after")
    def _names_are_of_attributes(self) -> AuditSettings:
        for attribute, names in self.names.items():
            if attribute not in self.attributes:
                raise ValueError(
                    f"names has the attribute {attribute}; allowed: {', '.join(self.attributes)}"
                )
            if len(set(names.values())) < len(names):
                raise ValueError(f"names of {attribute} gives two codes one name; make them differ")
        return self

    @model_validator(mode="after")
    def _gates_name_attributes(self) -> AuditSettings:
        for gate in self.gates:
            wanted = re.split(r"\s*[×*]\s*", gate.attribute) if gate.attribute else []
            unknown = [name for name in wanted if name not in self.attributes]
            if unknown:
                raise ValueError(
                    f"gate {gate.metric} names the attribute {unknown[0]}; "
                    f"allowed: {', '.join(self.attributes)}"
                )
        return self


class RegisterSettings(Settings):
    """The register stage: the name in the model registry."""

    model: RegistryName
    description: str = ""


class DeploySettings(Settings):
    """The deploy stage: load in a fresh process, compare on held-back rows, set the alias.

    An output passes when ``|served - trained| <= tolerance + tolerance * |trained|``.
    """

    alias: AliasName = "champion"
    tolerance: float = Field(default=1e-4, ge=0)
    rows: int = Field(default=256, ge=1, description="at most so many held-back rows are scored")
    timeout_seconds: float = Field(default=300.0, gt=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a pipeline was written: its file, text, overrides, and the line of every setting."""

    path: Path | None = None
    text: str = ""
    overrides: tuple[str, ...] = ()
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)

    def where(self, *location: str | int) -> str:
        """Return ``FILE:LINE: `` of a setting, or of the nearest one above it."""
        dotted = ".".join(map(str, location))
        for override in self.overrides:
            name = override.partition("=")[0]
            if dotted == name or dotted.startswith(f"{name}."):
                return f"command line ({override}): "
        if self.path is None:
            return ""
        known = next(
            (location[:n] for n in range(len(location), -1, -1) if location[:n] in self.lines), ()
        )
        return f"{self.path.name}:{self.lines.get(known, 1)}: "


class Pipeline(Settings):
    """A pipeline from data to deployment; the stages from ``evaluate`` on may be left out.

    Example:
        >>> pipeline = Pipeline.model_validate({
        ...     "name": "tiny", "prepare": {"call": "prepare:load", "rows": 100},
        ...     "train": {"model": "model:build", "workers": "1:4"}})
        >>> pipeline.prepare.options, pipeline.stages
        ({'rows': 100}, ('prepare', 'train'))
    """

    name: RegistryName
    prepare: PrepareSettings
    contract: ContractSettings | None = None
    train: TrainSettings
    evaluate: EvaluateSettings | None = None
    audit: AuditSettings | None = None
    register_: RegisterSettings | None = Field(default=None, alias="register")
    deploy: DeploySettings | None = None

    _source: Source = PrivateAttr(default_factory=Source)

    @model_validator(mode="after")
    def _stages_have_what_they_need(self) -> Pipeline:
        if self.audit and not self.evaluate:
            raise ValueError("audit needs the predictions of evaluate; add evaluate: {}")
        if self.deploy and not self.register_:
            raise ValueError("deploy needs a registered version; add register: {model: NAME}")
        return self

    @property
    def source(self) -> Source:
        """Where it was written."""
        return self._source

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that are configured, in order."""
        given = {
            "contract": self.contract, "evaluate": self.evaluate, "audit": self.audit,
            "register": self.register_, "deploy": self.deploy,
        }  # fmt: skip
        return tuple(name for name in STAGES if name not in given or given[name] is not None)

    @property
    def search_path(self) -> tuple[str, ...]:
        """Folders to import the user's callables from: that of the pipeline's file."""
        return (str(self._source.path.parent),) if self._source.path else ()

    def plain(self) -> dict[str, Any]:
        """Return all settings, defaults included, as plain values that YAML and JSON can hold."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def as_parts(entries: list[str | dict[str, dict[str, Any] | None]]) -> tuple[Part, ...]:
    """Return monitors or policies as written in a pipeline as parts.

    Example:
        >>> as_parts(["none", {"grow_with_noise": {"max_batch_size": 64}}])[1].options
        {'max_batch_size': 64}
    """
    return tuple(_as_part(entry) for entry in entries)


def _as_part(entry: str | dict[str, dict[str, Any] | None]) -> Part:
    if isinstance(entry, str):
        return Part(name=entry)
    ((name, options),) = entry.items()
    return Part(name=name, options=options or {})


def pipeline_schema() -> dict[str, Any]:
    """Return the JSON Schema of a pipeline file.

    Example:
        >>> pipeline_schema()["required"]
        ['name', 'prepare', 'train']
    """
    return Pipeline.model_json_schema(by_alias=True)
