"""The settings of a job, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.errors import ConfigurationError
from workbench.learning_rate import learning_rate_factor

SINGLE_WORKER = ("auto", "per-example", "split", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """How a job draws, accumulates and measures.

    Attributes:
        batch_size: Global batch size at the start, in samples, 1 or more.
        learning_rate_rule: ``none``, ``linear`` or ``square_root``.
        max_batch_size_per_worker: Samples that one worker holds at once; beyond, it accumulates.
        seed: Of the permutations.
        shuffle: Whether epochs are permuted at all.
        single_worker: How one worker's only micro-batch is taken apart on measured steps: by
            ``per-example`` norms, by a ``split`` in two, ``auto`` for the cheaper one that the model
            allows, or ``none``.
        read_lag: Steps after which a step's numbers are read and reacted to.
        static_graph: Every step uses the same parameters, so the graph is read only once.
        steps_at_boundary: The loop calls ``optimizer.step()`` only when ``job.at_boundary``.

    Raises:
        ConfigurationError: A setting is impossible.

    Example:
        >>> JobSettings(batch_size=64).read_lag
        1
    """

    batch_size: int
    learning_rate_rule: str = "none"
    max_batch_size_per_worker: int | None = None
    seed: int = 0
    shuffle: bool = True
    single_worker: str = "auto"
    read_lag: int = 1
    static_graph: bool = False
    steps_at_boundary: bool = False

    def __post_init__(self) -> None:
        _at_least("batch_size", self.batch_size, 1)
        if self.single_worker not in SINGLE_WORKER:
            raise ConfigurationError(
                f"single_worker is {self.single_worker!r}; allowed: {', '.join(SINGLE_WORKER)}; use auto"
            )
        _at_least("read_lag", self.read_lag, 0)
        if self.max_batch_size_per_worker is not None:
            _at_least("max_batch_size_per_worker", self.max_batch_size_per_worker, 1)
        learning_rate_factor(self.learning_rate_rule, 1, 1)


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"{name} is {value!r}; allowed: a whole number, {least} or more; set {name}={max(least, 1)}"
        )
