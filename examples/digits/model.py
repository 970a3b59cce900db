"""A small convolutional network for images of 8 x 8 pixels."""

from __future__ import annotations

from torch import nn


def build(*, channels: int = 16, hidden: int = 64, classes: int = 10) -> nn.Module:
    """Return the network: two convolutions, one hidden layer.

    Args:
        channels: Of the first convolution; the second has twice as many.
        hidden: Units of the hidden layer.
        classes: Outputs.

    Example:
        >>> import torch
        >>> build()(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """
    return nn.Sequential(
        nn.Conv2d(1, channels, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * channels * 4 * 4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
