"""PyTorch: attach a job to a loop, run jobs in processes, save and load their state."""

from .attach import attach
from .job import Epoch, Job

__all__ = ["Epoch", "Job", "attach"]
