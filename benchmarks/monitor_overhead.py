"""What monitoring the gradient noise scale costs a step: ours beside the tools of others.

In each case all arms live in the same processes and take turns, as :mod:`interleaved` says. The
first arm, without any monitor, runs twice; the ratio of the two, whose truth is 1, shows what cannot be
told apart. Tools that are not installed are left out, and the line says why: ``make bench-peers``
runs this in an environment that has them.

    python benchmarks/monitor_overhead.py [--seconds 45] [--case one] [--warm-up 160]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from interleaved import Arm, compare, in_processes, meet, report
from loops import (
    MakeTask,
    attached_steps,
    ddp_steps,
    perceptron,
    plain_steps,
    transformer,
    watched_steps,
)
from peers.adaptdl import adaptdl_steps, join
from peers.backpack import backpack_steps
from peers.cockpit import ECONOMY, NOISE, cockpit_steps
from peers.kdiffusion import kdiffusion_steps

OURS = "adaptive-workbench"
ADAPTDL = "adaptdl"
BACKPACK = "backpack-for-pytorch"
COCKPIT = "cockpit-for-pytorch"
WARM_UP_STEPS = 160  # ours measures each fourth step at first, and settles within so many

without_momentum = partial(perceptron, momentum=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=45.0, help="for each case")
    parser.add_argument(
        "--case", choices=[*CASES], action="append", help="only this; may be repeated"
    )
    parser.add_argument("--warm-up", type=int, default=WARM_UP_STEPS, help="steps of each arm")
    given = parser.parse_args()
    bad = 0
    for name in given.case or CASES:
        workers, case = CASES[name]
        bad = bad or in_processes(workers, case, given.seconds, given.warm_up)
    sys.exit(bad)


# The cases ----------------------------------------------------------------------------------------


def one_worker(rank: int, port: int, seconds: float, warm_up: int) -> None:
    start(rank, port, workers=1)
    arms = [
        Arm(name="plain", make=partial(plain_steps, perceptron)),
        Arm(name="plain again", make=partial(plain_steps, perceptron)),
        *ours(perceptron),
        Arm(name="DDP of one process", make=partial(ddp_steps, perceptron)),
        adaptdl_arm(),
        *(
            Arm(
                name=f"BackPACK {extension}",
                make=partial(backpack_steps, perceptron, extension),
                package=BACKPACK,
                optional=True,
            )
            for extension in ("BatchL2Grad", "SumGradSquared", "Variance")
        ),
    ]
    report("monitor_overhead", "one worker", arms, compare(arms, seconds, warm_up=warm_up))
    dist.destroy_process_group()


def one_worker_cockpit(rank: int, port: int, seconds: float, warm_up: int) -> None:
    """Cockpit apart: its steps are so long that the others would have few rounds."""
    del rank, port
    torch.set_num_threads(1)
    arms = [
        Arm(name="plain", make=partial(plain_steps, without_momentum)),
        Arm(name="plain again", make=partial(plain_steps, without_momentum)),
        *(
            Arm(
                name=f"Cockpit {name}",
                make=partial(cockpit_steps, without_momentum, quantities),
                package=COCKPIT,
                optional=True,
                steps_in_block=2,
                warm_up=min(warm_up, 4),
            )
            for name, quantities in (
                ("NormTest", ("NormTest",)),
                (" + ".join(NOISE), NOISE),
                (ECONOMY, ECONOMY),
            )
        ),
    ]
    found = compare(arms, seconds, warm_up=warm_up)
    report("monitor_overhead", "one worker, no momentum", arms, found)


def two_workers(rank: int, port: int, seconds: float, warm_up: int) -> None:
    start(rank, port, workers=2)
    arms = [
        Arm(name="DDP", make=partial(ddp_steps, perceptron)),
        Arm(name="DDP again", make=partial(ddp_steps, perceptron)),
        *ours(perceptron),
        *ours_on_ddp(perceptron),
        adaptdl_arm(),
        Arm(name="k-diffusion style hook", make=partial(kdiffusion_steps, perceptron), package=""),
    ]
    found = compare(arms, seconds, warm_up=warm_up, meet=meet)
    if rank == 0:
        report("monitor_overhead", "two workers, gloo", arms, found)
    dist.destroy_process_group()


def slow_step(rank: int, port: int, seconds: float, warm_up: int) -> None:
    """Steps of 100 ms or more; ours by default measures so few of them that a short run holds none."""
    del rank, port
    torch.set_num_threads(1)
    arms = [
        Arm(name="plain", make=partial(plain_steps, transformer), steps_in_block=1, warm_up=4),
        Arm(
            name="plain again", make=partial(plain_steps, transformer), steps_in_block=1, warm_up=4
        ),
        Arm(
            name="ours, default",
            make=partial(attached_steps, transformer),
            package=OURS,
            steps_in_block=1,
            warm_up=min(warm_up, 80),
        ),
        Arm(
            name="ours, every step",
            make=partial(attached_steps, transformer, measure_every=1),
            package=OURS,
            steps_in_block=1,
            warm_up=4,
        ),
    ]
    found = compare(arms, seconds, warm_up=warm_up)
    report("monitor_overhead", "slow step", arms, found)


CASES: dict[str, tuple[int, Callable[..., None]]] = {
    "one": (1, one_worker),
    "cockpit": (1, one_worker_cockpit),
    "two": (2, two_workers),
    "slow": (1, slow_step),
}


# What they share ----------------------------------------------------------------------------------


def start(rank: int, port: int, workers: int) -> None:
    """Make the process group, by AdaptDL's own call where it is installed: it wants to make it."""
    torch.set_num_threads(1)
    try:
        join(rank, port, workers)
    except ImportError:
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=workers)


def ours(make: MakeTask) -> list[Arm]:
    return [
        Arm(name=f"ours, {how}", make=partial(attached_steps, make, **options), package=OURS)
        for how, options in OUR_WAYS.items()
    ]


OUR_WAYS: dict[str, dict[str, object]] = {
    "no monitors": {"monitors": ()},
    "default": {},
    "every step": {"measure_every": 1},
}


def ours_on_ddp(make: MakeTask) -> list[Arm]:
    return [
        Arm(name=f"ours on DDP, {how}", make=partial(watched_steps, make, **options), package=OURS)
        for how, options in OUR_WAYS.items()
    ]


def adaptdl_arm() -> Arm:
    return Arm(
        name="AdaptDL AdaptiveDataParallel",
        make=partial(adaptdl_steps, perceptron),
        package=ADAPTDL,
        optional=True,
    )


if __name__ == "__main__":
    main()
