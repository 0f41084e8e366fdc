"""The assignment's network as the original defines it in PyTorch, with the original's names conv1, conv2 and conv3."""

import torch
from torch import nn


def block(in_channels: int, pool: bool, dropout: float) -> nn.Sequential:
    """Build two convolutions, the second of stride 2, and what follows them."""
    layers = []
    for channels, stride in ((in_channels, 1), (16, 2)):
        layers += [nn.Conv2d(channels, 16, 3, stride, padding=1), nn.ReLU(), nn.BatchNorm2d(16)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []), nn.Dropout(dropout))


class Net(nn.Module):
    """The network, with a dropout rate per block."""

    def __init__(self, dropout: tuple[float, float, float] = (0.0, 0.0, 0.0)):
        super().__init__()
        self.conv1 = block(1, True, dropout[0])
        self.conv2 = block(16, True, dropout[1])
        self.conv3 = block(16, False, dropout[2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits of normalised images ``[batch, 1, 28, 28]``; the log-softmax is part of the loss."""
        return self.conv3(self.conv2(self.conv1(x))).mean((2, 3))
