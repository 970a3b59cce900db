"""Join the group, run the checks that are asked for, print one JSON line."""

import json
import os
import sys

import torch
import torch.distributed as dist

rank, workers = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=workers)
told = {}
for which in sys.argv[2:]:
    if which.startswith("fsdp"):
        import fsdp_checks  # type: ignore[import-not-found]

        told[which] = fsdp_checks.checked(which)
    elif which == "watch":
        import watch_checks  # type: ignore[import-not-found]

        told[which] = watch_checks.checked()
    elif which == "page":
        import page_checks  # type: ignore[import-not-found]

        told[which] = page_checks.checked()
    else:
        import ddp_checks  # type: ignore[import-not-found]

        told[which] = ddp_checks.checked(which)
dist.destroy_process_group()
print(json.dumps(told))
