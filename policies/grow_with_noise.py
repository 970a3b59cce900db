"""Grow the batch while gradient noise dominates."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from workbench.decision import Decision, Keep, SetBatchSize
from workbench.errors import ConfigurationError
from workbench.policy import View


@dataclass(frozen=True, kw_only=True)
class GrowWithNoise:
    """Grow the batch towards the noise scale once it is surely above the batch.

    At a batch of ``B_simple = tr(Σ) / |G|²`` samples, noise and signal in the gradient are equal; a
    smaller batch wastes parallelism, a larger one wastes samples (McCandlish et al. 2018, "An
    Empirical Model of Large-Batch Training", section 2.2). The rule acts only when the whole
    interval of ``noise_scale``, times ``ratio``, lies above the batch, and it never shrinks.

    Args:
        max_batch_size: Largest global batch size to ask for, in samples; 1 or more.
        ratio: Batch size wanted as a multiple of the noise scale, above 0; 1 balances time and
            samples, less saves samples, more saves time.

    Raises:
        ConfigurationError: An option is impossible.

    Example:
        >>> from workbench.signal import Signal, Signals
        >>> noise = Signal(name="noise_scale", value=800.0, low=640.0, high=1010.0, unit="samples")
        >>> view = View(step=90, epoch=1, samples=5760, workers=2, batch_size_global=64,
        ...             signals=Signals.of([noise]))
        >>> decision = GrowWithNoise(max_batch_size=512).decide(view)
        >>> decision.batch_size_global, decision.reason
        (512, 'noise_scale 800 [640, 1010] samples is surely above batch size 64')
    """

    name: ClassVar[str] = "grow_with_noise"

    max_batch_size: int
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.max_batch_size, int) or self.max_batch_size < 1:
            raise ConfigurationError(
                f"grow_with_noise: max_batch_size is {self.max_batch_size!r}; allowed: a whole "
                "number, 1 or more; use for example max_batch_size=4096"
            )
        if not isinstance(self.ratio, (int, float)) or not 0 < self.ratio < inf:
            raise ConfigurationError(
                f"grow_with_noise: ratio is {self.ratio!r}; allowed: a number above 0; use ratio=1"
            )

    def decide(self, view: View) -> Decision:
        """Return a larger batch size, or ``Keep``."""
        noise, batch_size = view.signal("noise_scale"), view.batch_size_global
        if batch_size >= self.max_batch_size or not self.ratio * noise.low > batch_size:
            return Keep()
        wanted = int(min(self.ratio * noise.value, self.max_batch_size))
        if wanted <= batch_size:
            return Keep()
        reason = f"{noise} is surely above batch size {batch_size}"
        if self.ratio != 1.0:
            reason = f"{self.ratio:g} x {reason}"
        return SetBatchSize(wanted, because=(noise,), reason=reason)
