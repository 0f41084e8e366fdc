"""PyTorch's arm of ``predict``."""

import time

import torch

from benchmarks.arms import work
from benchmarks.arms.predict_ours import loss_of
from benchmarks.arms.torch_step import DEVICE, Net, initial_weights, parameters
from benchmarks.worker import Task


def predict(*, batch: int, mode: str, precision: str, part: int | None = None) -> Task:
    """channels_last, all threads, inference mode; from uint8 NumPy images, so many at once, to NumPy logits."""
    torch._dynamo.reset()
    net = Net().to(DEVICE, memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
    initial_weights(net)
    forward = torch.compile(net) if mode == "compiled" else net
    images, labels = work.digits(batch)
    raw = torch.from_numpy(images.transpose(0, 3, 1, 2)).split(part or batch)

    def logits() -> torch.Tensor:
        return torch.cat([logits_of(x) for x in raw])

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        x = x.to(DEVICE).float().div_(255).sub_(work.MEAN).div_(work.STD)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16"):
            return forward(x.contiguous(memory_format=torch.channels_last)).float().cpu()

    with torch.inference_mode():
        start = time.perf_counter()
        losses = [loss_of(logits().numpy(), labels)]
        first = time.perf_counter() - start

    def run(n: int) -> None:
        with torch.inference_mode():
            for _ in range(n):
                logits().numpy()

    return Task(run, batch, parameters(net), losses, first if mode == "compiled" else 0.0)
