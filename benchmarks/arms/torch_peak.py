"""PyTorch's matrix products at their best."""

import torch

from benchmarks.arms.torch_step import DEVICE, synchronise
from benchmarks.worker import Task

SIZE = 2048


def products(*, batch: int, precision: str) -> Task:
    """A large product on all threads."""
    a = torch.full((SIZE, SIZE), 0.01, device=DEVICE, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)

    def run(n: int) -> None:
        for _ in range(n):
            torch.mm(a, a)
        synchronise()

    return Task(run, 2 * SIZE**3 / 1e9)
