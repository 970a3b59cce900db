"""Probes: measure a model directly, when asked, and leave it as it was.

A monitor watches every step and costs almost nothing; a probe stops the loop, costs some hundred
passes, and measures what no monitor can: the sharpness, and the critical batch size by trying.
"""

from .comparison import Comparison, CriticalBatch
from .critical_batch import critical_batch
from .sharpness import Sharpness, sharpness

__all__ = ["Comparison", "CriticalBatch", "Sharpness", "critical_batch", "sharpness"]
