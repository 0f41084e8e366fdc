"""PyTorch's arms: eager or compiled, contiguous or channels_last, threads, bfloat16 autocast; one run or many."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.arms import work
from benchmarks.worker import Task
from tests.parity.reference import Net

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def synchronise() -> None:
    """Waits for the accelerator, where there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def initial_weights(net: nn.Module) -> None:
    """Gives the network the weights that every arm begins with."""
    net.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in work.state_dict().items()}, strict=False)


class Trainer:
    """One network and the step that trains it, eager or compiled."""

    def __init__(self, mode: str, layout: str, precision: str):
        """Makes the network; a compiled one compiles in its first step."""
        self.net = Net().to(DEVICE, memory_format=FORMATS[layout]).train()  # pyright: ignore[reportCallIssue]
        self._autocast = {"device_type": DEVICE, "dtype": torch.bfloat16, "enabled": precision == "bf16"}
        self._loss = torch.compile(self._loss_eager) if mode == "compiled" else self._loss_eager
        self.restart()

    def restart(self, learning_rate: float = work.LEARNING_RATE) -> None:
        """Begins another run."""
        initial_weights(self.net)
        # fused: one kernel for all parameters, PyTorch's fastest.
        self._optimizer = torch.optim.SGD(self.net.parameters(), learning_rate, work.MOMENTUM, fused=True)

    def _loss_eager(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(**self._autocast):
            return cross_entropy(self.net(x), y)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Takes a step; returns the loss before it."""
        self._optimizer.zero_grad()
        loss = self._loss(x, y)
        loss.backward()
        self._optimizer.step()
        return loss.detach()


class GraphTrainer(Trainer):
    """The same step recorded once as a CUDA graph, and replayed: no launch waits for Python."""

    def __init__(self, mode: str, layout: str, precision: str):
        """Makes the network; the first step records the graph."""
        self._graph: torch.cuda.CUDAGraph | None = None
        super().__init__(mode, layout, precision)

    def restart(self, learning_rate: float = work.LEARNING_RATE) -> None:
        """Begins another run, in the memory that the graph knows and at the rate that it was recorded with."""
        if self._graph is None:
            return super().restart(learning_rate)
        initial_weights(self.net)
        for state in self._optimizer.state.values():
            state["momentum_buffer"].zero_()

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Takes a step; returns the loss before it, which the next step overwrites."""
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
    """Makes the Trainer of a mode: eager, compiled, or one of these as a CUDA graph: ``eager graph`` and so on."""
    mode, _, graph = mode.partition(" ")
    return (GraphTrainer if graph else Trainer)(mode, layout, precision)


def make_batches(batch: int, count: int, layout: str) -> Batches:
    """Normalised images ``[batch, 1, 28, 28]`` in the layout, and labels, on the device."""
    images, labels = work.digits(batch * count)
    x = torch.from_numpy(work.normalised(images).transpose(0, 3, 1, 2).copy()).to(DEVICE)
    y = torch.from_numpy(labels).long().to(DEVICE)
    pairs = zip(x.split(batch), y.split(batch), strict=True)
    return [(a.contiguous(memory_format=FORMATS[layout]), b) for a, b in pairs]


def checked(trainer: Trainer, batches: Batches) -> tuple[list[float], float]:
    """Returns the losses of two steps on the first batch, and the seconds of the first step over the second's."""
    losses, seconds = [], []
    for _ in range(2):
        start = time.perf_counter()
        losses.append(float(trainer.step(*batches[0])))
        seconds.append(time.perf_counter() - start)
    return losses, max(0.0, seconds[0] - seconds[1])


def parameters(net: nn.Module) -> int:
    """Counts them."""
    return sum(p.numel() for p in net.parameters())


def train_step(*, batch: int, mode: str, layout: str, threads: int, precision: str) -> Task:
    """A step a call; the batches are ready, normalised, in memory."""
    torch._dynamo.reset()  # another batch size would be compiled with unknown sizes, which is slower
    torch.set_num_threads(threads)
    trainer, batches = make_trainer(mode, layout, precision), make_batches(batch, 8, layout)
    losses, compile_seconds = checked(trainer, batches)

    def run(n: int) -> None:
        for _ in range(n):
            for pair in batches:
                trainer.step(*pair)
        synchronise()

    compile_seconds = compile_seconds if mode.startswith("compiled") else 0.0
    return Task(run, 8 * batch, parameters(trainer.net), losses, compile_seconds, profile=lambda f: profiled(run, f))


def profiled(run: Callable[[int], Any], folder: str) -> None:
    """Writes a trace of one call."""
    handler = torch.profiler.tensorboard_trace_handler(folder)
    with torch.profiler.profile(on_trace_ready=handler):
        run(1)
