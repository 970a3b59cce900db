"""A plain PyTorch loop over the digits; the lines marked (1) and (2) are all that was added.

Run it by ``python train.py``, or on two workers by ``wb run train.py --workers 2``.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from workbench.adaptors.torch import attach
from workbench.policies import GrowWithNoise


def main(epochs: int = 10) -> float:
    """Train, and return the accuracy on the rows trained on."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    classes = torch.tensor(digits.target)
    dataset = TensorDataset(images, classes)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss_fn = nn.CrossEntropyLoss()

    policies = [GrowWithNoise(max_batch_size=256)]
    job = attach(model, optimizer, dataset, batch_size=16, policies=policies)  # (1)
    for epoch in job.epochs(epochs):  # (2)
        for inputs, targets in epoch:
            loss = loss_fn(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    with torch.no_grad():
        accuracy = float((model(images).argmax(dim=1) == classes).float().mean())
    print(f"accuracy on the training rows: {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
