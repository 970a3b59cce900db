"""A plain training script with the two lines; rank 0 prints what it did."""

import json
import sys

import torch
from torch.nn import functional as F  # noqa: N812

from workbench import Signal, StepFacts
from workbench.adaptors.torch import attach
from workbench.codec import to_plain
from workbench.policies import Schedule
from workbench.signal import exact
from workbench.testing import MemoryTracker

options = json.loads(sys.argv[1])
count, epochs, pace = options.pop("count"), options.pop("epochs"), options.pop("pace", None)
torch.manual_seed(options.pop("model_seed", 0))


class Asks:
    """A monitor that needs what it is told to."""

    name = "asks"

    def __init__(self, needs: list[str]) -> None:
        self.needs = needs

    def init(self) -> None:
        return None

    def update(self, state: None, facts: StepFacts) -> tuple[None, Signal]:
        return state, exact(self.name, 0.0, step=facts.step)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 3)
        self.rare, self.never = torch.nn.Linear(16, 3), torch.nn.Linear(4, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.first(inputs))
        outputs: torch.Tensor = self.second(hidden)
        if bool((inputs[:, 0] > 1.5).any()):  # some ranks, some steps
            outputs = outputs + (inputs[:, :1] > 1.5) * self.rare(hidden)
        return outputs


generator = torch.Generator().manual_seed(1)
inputs = torch.randn(count, 8, generator=generator)
targets = torch.randint(0, 3, (count,), generator=generator)
dataset = torch.utils.data.TensorDataset(inputs, targets, torch.arange(count))
model, tracker, shown = Model(), MemoryTracker(), []
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
options = {"measure_every": 1, "single_worker": "split", **options}
needs, schedule = options.pop("needs", None), options.pop("schedule", None)
if options.pop("half", False):  # a type too coarse for the numbers that ride along
    model = model.bfloat16()
    dataset = torch.utils.data.TensorDataset(inputs.bfloat16(), *dataset.tensors[1:])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
if options.pop("double", False):
    model = model.double()
    dataset = torch.utils.data.TensorDataset(inputs.double(), *dataset.tensors[1:])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
if needs:
    options["monitors"] = [Asks(needs)]
if schedule:
    options["policies"] = [Schedule(at={int(step): size for step, size in schedule.items()})]
job = attach(model, optimizer, dataset, trackers=[tracker], **options)
for epoch in job.epochs(epochs):
    for batch, labels, index in epoch:
        loss = F.cross_entropy(model(batch), labels)
        job.observe(loss=loss)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        shown.append(index.tolist())
everyone = [None] * job.workers
weights = torch.cat([value.flatten() for value in model.state_dict().values()]).double()
if job.workers > 1:
    torch.distributed.all_gather_object(everyone, weights.tolist())
    assert all(one == everyone[0] for one in everyone), "weights differ between ranks"
if job.rank == 0:
    facts = [record.facts for record in tracker.records]
    print(
        json.dumps(
            {
                "losses": [fact.loss for fact in facts],
                "small": [fact.grad_sqnorm_small for fact in facts],
                "big": [fact.grad_sqnorm_big for fact in facts],
                "parts": [fact.small_batches for fact in facts],
                "origins": sorted({fact.origin for fact in facts}),
                "samples": job.samples,
                "workers": job.workers,
                "weights": weights.tolist(),
                "sizes": [fact.batch_size_global for fact in facts],
                "facts": [to_plain(fact) for fact in facts],
                "never": model.never.weight.grad is None,
            }
        )
    )
job.close()
