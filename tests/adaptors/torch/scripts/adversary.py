"""A loop on several workers that does what its options say; each rank tells what it did."""

import json
import os
import sys
from pathlib import Path

import torch
from torch.nn import functional as F  # noqa: N812

from workbench.adaptors.torch import attach
from workbench.testing import MemoryTracker

options = json.loads(sys.argv[1])
torch.manual_seed(0)


class TwoHeads(torch.nn.Module):
    """Returns two outputs; the loss uses the first."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.other = (torch.nn.Linear(8, n) for n in (8, 3, 2))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.body(inputs))
        return self.head(hidden), self.other(hidden)


generator = torch.Generator().manual_seed(1)
inputs = torch.randn(96, 8, generator=generator)
dataset = torch.utils.data.TensorDataset(inputs, torch.randint(0, 3, (96,), generator=generator))
model = TwoHeads()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=options.get("scaler", False))
overflows = options.get("overflows", {"rank": -1, "steps": []})
raises = options.get("raises", {"rank": -1, "step": -1})
tracker = MemoryTracker()
job = attach(
    model,
    optimizer,
    dataset,
    batch_size=16,
    measure_every=2,
    monitors=options.get("monitors", ["noise_scale"]),
    grad_scaler=scaler,
    trackers=[tracker],
)
try:
    for epoch in job.epochs(options.get("epochs", 2)):
        for inputs, targets in epoch:
            if raises == {"rank": job.rank, "step": job.step}:
                raise KeyError("mine")
            if job.step in options.get("saves", ()):
                job.state_dict()
            loss = F.cross_entropy(model(inputs)[0], targets)
            job.observe(loss=loss)
            if job.rank == overflows["rank"] and job.step in overflows["steps"]:
                loss = loss * float("inf")
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if job.step >= options.get("clip_from", 1000):
                torch.nn.utils.clip_grad_norm_(model.parameters(), options["clip"])
            if job.step in options.get("flushes", ()):
                job.flush()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
finally:
    job.close()
facts = [record.facts for record in tracker.records]
told = {
    "weights": [value for p in model.parameters() for value in p.detach().flatten().tolist()],
    "skipped": [one.skipped for one in facts],
    "facts": [(one.step, one.loss, one.grad_sqnorm_small, one.grad_sqnorm_big) for one in facts],
}
(Path(os.environ["WB_FOLDER"]) / f"told-{job.rank}.json").write_text(json.dumps(told))
