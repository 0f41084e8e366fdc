"""PyTorch's arms of a sweep: one lane after another, one process a core, or ``torch.func``'s ensemble."""

import contextlib
import multiprocessing
from typing import Any

import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from benchmarks.arms import work
from benchmarks.arms.torch_step import (
    DEVICE,
    Net,
    checked,
    initial_weights,
    make_batches,
    make_trainer,
    parameters,
    synchronise,
)
from benchmarks.worker import Task, end_with_parent


def sequential(
    *, lanes: int, mode: str, layout: str, threads: int, precision: str, batch: int = 64, images: int | None = None
) -> Task:
    """Lanes one after another, all threads on one."""
    torch.set_num_threads(threads)
    batches = make_batches(batch, (images or work.images_a_lane(lanes, batch, DEVICE)) // batch, layout)
    trainer = make_trainer(mode, layout, precision)
    losses, compile_seconds = checked(trainer, batches)

    def run(n: int) -> None:
        for _ in range(n * lanes):
            trainer.restart()
            for pair in batches:
                trainer.step(*pair)
        synchronise()

    work_done = lanes * len(batches) * batch
    compile_seconds = compile_seconds if mode.startswith("compiled") else 0.0
    return Task(run, work_done, parameters(trainer.net), losses, compile_seconds)


def processes(*, lanes: int, processes: int, mode: str, layout: str, precision: str, batch: int = 64) -> Task:
    """Single-threaded processes, each with its share of the lanes, one after another."""
    context = multiprocessing.get_context("spawn")
    images = work.images_a_lane(lanes, batch, DEVICE)
    pipes, ready = [], []
    for number in range(min(processes, lanes)):
        share = (lanes - number - 1) // processes + 1
        here, there = context.Pipe()
        settings = {"lanes": share, "batch": batch, "mode": mode, "layout": layout, "precision": precision}
        context.Process(target=_serve, args=(there, {**settings, "images": images}), daemon=True).start()
        pipes.append(here)
        if mode == "compiled" and not ready:  # the first fills the compiler's cache for the others
            ready.append(here.recv())
    ready += [pipe.recv() for pipe in pipes[len(ready) :]]
    worst = max(ready, key=lambda answer: abs(answer[1][1] - ready[0][1][1]))

    def run(n: int) -> None:
        for pipe in pipes:
            pipe.send(n)
        for pipe in pipes:
            pipe.recv()

    info = {"processes": len(pipes)}
    return Task(run, lanes * images // batch * batch, ready[0][0], worst[1], max(r[2] for r in ready), info=info)


def _serve(pipe: Any, settings: dict[str, Any]) -> None:
    """A process's life."""
    end_with_parent()
    task = sequential(threads=1, **settings)
    pipe.send((task.num_params, task.losses, task.compile_seconds))
    with contextlib.suppress(EOFError):  # the other end went away
        while True:
            task.run(pipe.recv())
            pipe.send(None)


def ensemble(*, lanes: int, threads: int, batch: int = 64) -> Task:
    """``torch.func``: ``vmap`` over the stacked networks, as its tutorial on model ensembling has it."""
    torch.set_num_threads(threads)
    nets = [Net().to(DEVICE).train() for _ in range(lanes)]
    for net in nets:
        initial_weights(net)
    params, buffers = stack_module_state(nets)  # pyright: ignore[reportArgumentType]
    velocity = {name: torch.zeros_like(p) for name, p in params.items()}
    batches = make_batches(batch, 2, "contiguous")

    def loss_fn(params: Any, buffers: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(nets[0], (params, buffers), (x,)), y)

    step_fn = vmap(grad_and_value(loss_fn), in_dims=(0, 0, None, None))

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        grads, losses = step_fn(params, buffers, x, y)
        with torch.no_grad():
            for name, p in params.items():
                velocity[name].mul_(work.MOMENTUM).add_(grads[name])
                p.sub_(velocity[name], alpha=work.LEARNING_RATE)
        return losses

    found = [step(*batches[0]) for _ in range(2)]
    losses = [float(row[(row - row.median()).abs().argmax()]) for row in found]

    def run(n: int) -> None:
        for _ in range(n):
            for pair in batches:
                step(*pair)
        synchronise()

    num_params = sum(p[0].numel() for p in params.values())
    return Task(run, lanes * len(batches) * batch, num_params, losses)
