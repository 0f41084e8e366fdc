"""PyTorch's training step: eager, compiled, or recorded as a CUDA graph; and its largest matrix product."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.arms import work
from benchmarks.arms.pytorch.network import Net
from benchmarks.worker import Task, repeated

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SIZE = 2048
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def synchronise() -> None:
    """Wait for the accelerator, if there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def make_net(layout: str = "contiguous", dropout: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Net:
    """Return a network on the device, with PyTorch's own initial weights."""
    return Net(dropout).to(DEVICE, memory_format=FORMATS[layout])  # pyright: ignore[reportCallIssue]


def set_initial_weights(net: nn.Module) -> None:
    """Give a network the weights that every arm starts with."""
    net.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in work.state_dict().items()}, strict=False)


class Trainer:
    """One network and the step that trains it, eager or compiled."""

    def __init__(self, mode: str, layout: str, precision: str):
        """Make the network. A compiled one compiles in its first step."""
        self.net = make_net(layout).train()
        self._autocast = {"device_type": DEVICE, "dtype": torch.bfloat16, "enabled": precision == "bf16"}
        self._loss = torch.compile(self._loss_eager) if mode == "compiled" else self._loss_eager
        self.restart()

    def restart(self) -> None:
        """Start another run, with the initial weights and a new optimizer."""
        set_initial_weights(self.net)
        # fused: one kernel for all parameters, which is PyTorch's fastest way.
        self._optimizer = torch.optim.SGD(self.net.parameters(), work.LEARNING_RATE, work.MOMENTUM, fused=True)

    def _loss_eager(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(**self._autocast):
            return cross_entropy(self.net(x), y)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Take a step; return the loss before it."""
        self._optimizer.zero_grad()
        loss = self._loss(x, y)
        loss.backward()
        self._optimizer.step()
        return loss.detach()


class GraphTrainer(Trainer):
    """The same step, recorded once as a CUDA graph and replayed, so that no kernel's launch waits for Python."""

    def __init__(self, mode: str, layout: str, precision: str):
        """Make the network. The first step records the graph."""
        self._graph: torch.cuda.CUDAGraph | None = None
        super().__init__(mode, layout, precision)

    def restart(self) -> None:
        """Start another run, in the memory that the graph uses."""
        if self._graph is None:
            return super().restart()
        set_initial_weights(self.net)
        for state in self._optimizer.state.values():
            state["momentum_buffer"].zero_()

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Take a step; return the loss before it, which the next step overwrites."""
        if self._graph is None:
            self._record(x, y)
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()  # pyright: ignore[reportOptionalMemberAccess]
        return self._recorded_loss

    def _record(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self._x, self._y = x.clone(), y.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries choose their kernels before they are recorded
                super().step(self._x, self._y)
        torch.cuda.current_stream().wait_stream(stream)
        self._optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._recorded_loss = super().step(self._x, self._y)
        self._graph = graph
        self.restart()


def make_trainer(mode: str, layout: str, precision: str) -> Trainer:
    """Make the Trainer of a mode: eager, compiled, ``eager graph`` or ``compiled graph``."""
    mode, _, graph = mode.partition(" ")
    return (GraphTrainer if graph else Trainer)(mode, layout, precision)


def tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised images ``[n, 1, 28, 28]`` and labels on the device."""
    x = torch.from_numpy(work.normalised(images).transpose(0, 3, 1, 2).copy()).to(DEVICE)
    return x, torch.from_numpy(labels).long().to(DEVICE)


def make_batches(batch: int, count: int, layout: str) -> Batches:
    """Return batches of the first digits on the device, in a memory format."""
    x, y = tensors(*work.digits(batch * count))
    return [
        (a.contiguous(memory_format=FORMATS[layout]), b) for a, b in zip(x.split(batch), y.split(batch), strict=True)
    ]


def training_task(mode: str, trainer: Trainer, batches: Batches, train: Callable[[], Any], images: int) -> Task:
    """Return a task that calls ``train``, after two steps on the first batch, whose losses are checked."""
    losses, seconds = work.two_losses(lambda: trainer.step(*batches[0]))
    seconds = seconds if mode.startswith("compiled") else 0.0
    return Task(repeated(train, synchronise), images, count(trainer.net), losses, seconds)


def count(net: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in net.parameters())


def train_step(*, batch: int, mode: str, layout: str, threads: int, precision: str) -> Task:
    """Call a step per batch; the batches are in memory and normalised."""
    torch._dynamo.reset()  # a second batch size would be compiled for any size, which is slower
    torch.set_num_threads(threads)
    trainer, batches = make_trainer(mode, layout, precision), make_batches(batch, 8, layout)

    def train() -> None:
        for pair in batches:
            trainer.step(*pair)

    task = training_task(mode, trainer, batches, train, 8 * batch)
    task.profile = lambda folder: profile(task, folder)
    return task


def profile(task: Task, folder: str) -> None:
    """Run a task once and write a trace."""
    with torch.profiler.profile(on_trace_ready=torch.profiler.tensorboard_trace_handler(folder)):
        task.run(1)


def products(*, batch: int, precision: str) -> Task:
    """Multiply large matrices on all threads: the most that PyTorch reaches on this machine."""
    a = torch.full((SIZE, SIZE), 0.01, device=DEVICE, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return Task(repeated(lambda: torch.mm(a, a), synchronise), 2 * SIZE**3 / 1e9)
