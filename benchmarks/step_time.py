"""What a step costs with our monitors, in each of their ways: one worker, and two against plain DDP.

The loops take turns, as :mod:`interleaved` says; the plain loop runs twice, and the ratio of the two,
whose truth is 1, shows what cannot be told apart.

    python benchmarks/step_time.py [--seconds 45]
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import torch
import torch.distributed as dist
from interleaved import Arm, compare, in_processes, meet, report
from loops import attached_steps, ddp_steps, perceptron, plain_steps

WARM_UP_STEPS = 160  # ours measures often at first, and settles within so many steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=45.0, help="for each of the two cases")
    parser.add_argument("--warm-up", type=int, default=WARM_UP_STEPS, help="steps of each arm")
    given = parser.parse_args()
    bad = in_processes(1, one_worker, given.seconds, given.warm_up)
    sys.exit(bad or in_processes(2, two_workers, given.seconds, given.warm_up))


def one_worker(rank: int, port: int, seconds: float, warm_up: int) -> None:
    del rank, port
    torch.set_num_threads(1)
    arms = [
        Arm(name="plain", make=partial(plain_steps, perceptron)),
        Arm(name="plain again", make=partial(plain_steps, perceptron)),
        attached("no monitors", monitors=()),
        attached("default"),
        attached("every step, per-example norms", measure_every=1, single_worker="per-example"),
        attached("every step, split", measure_every=1, single_worker="split"),
        attached("every step, one batch size", measure_every=1, single_worker="none"),
    ]
    report("step_time", "one worker", arms, compare(arms, seconds, warm_up=warm_up))


def two_workers(rank: int, port: int, seconds: float, warm_up: int) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    arms = [
        Arm(name="DDP", make=partial(ddp_steps, perceptron)),
        Arm(name="DDP again", make=partial(ddp_steps, perceptron)),
        attached("no monitors", monitors=()),
        attached("default"),
        attached("every step", measure_every=1),
        attached("every step, read at once", measure_every=1, read_lag=0),
    ]
    found = compare(arms, seconds, warm_up=warm_up, meet=meet)
    if rank == 0:
        report("step_time", "two workers, gloo", arms, found)
    dist.destroy_process_group()


def attached(how: str, **options: object) -> Arm:
    return Arm(name=f"attached, {how}", make=partial(attached_steps, perceptron, **options))


if __name__ == "__main__":
    main()
