"""Many networks in PyTorch: one after another, one process per core, or ``torch.func``'s ensemble."""

from typing import Any

import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from benchmarks.arms import work
from benchmarks.arms.pytorch.step import (
    DEVICE,
    make_batches,
    make_net,
    make_trainer,
    set_initial_weights,
    synchronise,
    training_task,
)
from benchmarks.process import Worker, ask_all
from benchmarks.worker import Task, repeated


def sequential(
    *, lanes: int, mode: str, layout: str, threads: int, precision: str, batch: int = 64, images: int | None = None
) -> Task:
    """Train lanes one after another, each on all threads."""
    torch.set_num_threads(threads)
    batches = make_batches(batch, (images or work.images_per_lane(lanes, batch, DEVICE)) // batch, layout)
    trainer = make_trainer(mode, layout, precision)

    def train() -> None:
        for _ in range(lanes):
            trainer.restart()
            for pair in batches:
                trainer.step(*pair)

    return training_task(mode, trainer, batches, train, lanes * len(batches) * batch)


def processes(*, lanes: int, processes: int, mode: str, layout: str, precision: str, batch: int = 64) -> Task:
    """Train in single-threaded processes, each of which trains its share of the lanes one after another."""
    images = work.images_per_lane(lanes, batch, DEVICE)
    settings = {"batch": batch, "mode": mode, "layout": layout, "precision": precision, "images": images, "threads": 1}
    workers, ready = [], []
    for number in range(min(processes, lanes)):
        worker = Worker("benchmarks.arms.pytorch.sweep:sequential", {}, own_group=False)
        share = (lanes - number - 1) // processes + 1
        worker.send("prepare", arguments={**settings, "lanes": share}, seconds=0.0)
        workers.append(worker)
        if mode == "compiled" and not ready:  # the first fills the compiler's cache for the others
            ready.append(worker.receive())
    ready += [worker.receive() for worker in workers[len(ready) :]]
    worst = max(ready, key=lambda r: abs(r["losses"][1] - ready[0]["losses"][1]))
    done, seconds = sum(r["work"] for r in ready), max(r["compile_seconds"] for r in ready)

    def run(n: int) -> None:
        ask_all(workers, "sample", repeats=n)

    return Task(run, done, worst["num_params"], worst["losses"], seconds, info={"processes": len(workers)})


def ensemble(*, lanes: int, threads: int, batch: int = 64) -> Task:
    """Use ``torch.func``: ``vmap`` over the stacked networks, as in its tutorial on model ensembling."""
    torch.set_num_threads(threads)
    nets = [make_net().train() for _ in range(lanes)]
    for net in nets:
        set_initial_weights(net)
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

    def train() -> None:
        for pair in batches:
            step(*pair)

    losses = [work.furthest_from_median(step(*batches[0]).detach().cpu().numpy()) for _ in range(2)]
    num_params = sum(p[0].numel() for p in params.values())
    return Task(repeated(train, synchronise), lanes * len(batches) * batch, num_params, losses)
