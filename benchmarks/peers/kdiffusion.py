"""A hook in the style of k-diffusion: both squared norms of every bucket that DDP reduces.

Written from the description of ``k_diffusion.gns`` (a communication hook of DDP that keeps the
squared norm of each bucket before and after the reduction; both are averaged over the ranks and
read at every step; estimates of McCandlish et al. 2018, appendix A.1, averaged with a decay
of 0.9998), not copied from it.
"""

import torch
import torch.distributed as dist
from interleaved import Steps
from loops import MakeTask, share_of, train
from torch.nn.parallel import DistributedDataParallel

DECAY = 0.9998


class BucketNorms:
    """The squared norms of this step's buckets, this rank's own and reduced."""

    def __init__(self) -> None:
        self.own: list[torch.Tensor] = []
        self.reduced: list[torch.Tensor] = []

    def take(self) -> tuple[float, float]:
        """Return both, summed over buckets and averaged over ranks, and forget them."""
        both = torch.stack([torch.stack(self.own).sum(), torch.stack(self.reduced).sum()])
        self.own, self.reduced = [], []
        dist.all_reduce(both)
        own, reduced = (both / dist.get_world_size()).tolist()
        return own, reduced


# DDP reads these annotations, so they are not postponed.
def keep_norms(
    norms: BucketNorms,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    gradients = bucket.buffer()
    norms.own.append(gradients.square().sum())
    gradients.div_(dist.get_world_size())
    work = dist.all_reduce(gradients, async_op=True)

    def after(done: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
        reduced = done.value()[0]
        norms.reduced.append(reduced.square().sum())
        return reduced

    then: torch.futures.Future[torch.Tensor] = work.get_future().then(after)
    return then


class NoiseScale:
    """Averages with a fixed decay of the two estimates; their ratio is the noise scale."""

    def __init__(self) -> None:
        self.signal = 0.0
        self.noise = 0.0

    def update(self, own: float, reduced: float, *, small: int, big: int) -> float:
        signal = (big * reduced - small * own) / (big - small)
        noise = (own - reduced) / (1 / small - 1 / big)
        self.signal = DECAY * self.signal + (1 - DECAY) * signal
        self.noise = DECAY * self.noise + (1 - DECAY) * noise
        return self.noise / self.signal if self.signal else float("nan")


def kdiffusion_steps(make: MakeTask) -> Steps:
    task = make()
    wrapped = DistributedDataParallel(task.model)
    norms, scale = BucketNorms(), NoiseScale()
    wrapped.register_comm_hook(norms, keep_norms)
    loader = share_of(task)
    while True:
        for inputs, targets in loader:
            train(wrapped, task.optimizer, inputs, targets)
            own, reduced = norms.take()
            small = len(inputs)
            scale.update(own, reduced, small=small, big=small * dist.get_world_size())
            yield
