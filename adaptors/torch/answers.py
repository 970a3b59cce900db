"""What this adaptor cannot carry out, and why: an answer that is data, not an exception."""

from __future__ import annotations

from workbench.decision import Decision, Resize, SetBatchSize, SetSync

from .settings import JobSettings


def micro_batches(batch_size: int, settings: JobSettings, workers: int) -> int:
    """Return how many micro-batches a worker needs for a step of ``batch_size`` samples.

    Example:
        >>> micro_batches(100, JobSettings(batch_size=8, max_batch_size_per_worker=20), 2)
        3
    """
    share = -(-batch_size // workers)
    return -(-share // (settings.max_batch_size_per_worker or share))


def refusal(decision: Decision, settings: JobSettings, *, workers: int, scaling: bool) -> str:
    """Return why the decision cannot be carried out, or an empty string.

    Args:
        decision: What was decided.
        settings: The job's.
        workers: World size.
        scaling: Whether the loop uses a gradient scaler.

    Example:
        >>> refusal(Resize(4), JobSettings(batch_size=8), workers=2, scaling=False)
        'fixed number of workers'
    """
    if isinstance(decision, Resize):
        return "fixed number of workers"
    if isinstance(decision, SetSync):
        return "" if decision.strategy == "every_step" else "gradients are averaged at every step"
    if isinstance(decision, SetBatchSize) and scaling and not settings.steps_at_boundary:
        parts = micro_batches(decision.batch_size_global, settings, workers)
        if parts > 1:
            return (
                f"batch size {decision.batch_size_global} needs {parts} micro-batches a worker, and a "
                "loop with a gradient scaler accumulates only when it steps at job.at_boundary "
                "(attach with steps_at_boundary=True)"
            )
    return ""
