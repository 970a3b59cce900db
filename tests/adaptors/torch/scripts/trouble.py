"""A job in which one rank does what it is told to: raise, die, or exit; or all train for long."""

import os
import signal
import sys
import time

import torch

from workbench.adaptors.torch import attach

what, who = sys.argv[1], int(sys.argv[2])
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
dataset = torch.utils.data.TensorDataset(torch.randn(100_000, 4), torch.randn(100_000, 1))
job = attach(model, optimizer, dataset, batch_size=8)
for epoch in job.epochs(50):
    for inputs, targets in epoch:
        if job.step == 20 and job.rank == who:
            print(f"rank {job.rank} does {what}", flush=True)
            if what == "raise":
                raise KeyError("a bug of the user's")
            if what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "exit":
                sys.exit(7)
        if what == "slow":
            time.sleep(0.01)
        torch.nn.functional.mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
print(f"ended at step {job.step}, interrupted {job.interrupted}", flush=True)
job.close()
