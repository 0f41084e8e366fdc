"""Prediction in PyTorch."""

import time

import numpy as np
import torch

from benchmarks.arms import work
from benchmarks.arms.pytorch.step import DEVICE, count, make_net, set_initial_weights
from benchmarks.worker import Task, repeated


def predict(*, batch: int, mode: str, precision: str, part: int | None = None) -> Task:
    """Predict uint8 NumPy images, ``part`` at a time, in channels_last, inference mode and on all threads."""
    torch._dynamo.reset()
    net = make_net("channels_last").eval()
    set_initial_weights(net)
    forward = torch.compile(net) if mode == "compiled" else net
    images, labels = work.digits(batch)
    raw = torch.from_numpy(images.transpose(0, 3, 1, 2)).split(part or batch)

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        x = x.to(DEVICE).float().div_(255).sub_(work.MEAN).div_(work.STD)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            return forward(x.contiguous(memory_format=torch.channels_last)).float().cpu()

    def logits() -> np.ndarray:
        return torch.cat([logits_of(x) for x in raw]).numpy()

    with torch.inference_mode():
        start = time.perf_counter()
        losses = [work.loss_of(logits(), labels)]
        first = time.perf_counter() - start
    run = torch.inference_mode()(repeated(logits))
    return Task(run, batch, count(net), losses, first if mode == "compiled" else 0.0)
