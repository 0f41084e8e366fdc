"""What a sweep will take, before it starts: memory by its sizes, time by a few steps of its first group."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jax_s6.sweep.report import say
from jax_s6.training import plan as grids
from jax_s6.training.arrangement import BYTES_PER_IMAGE
from jax_s6.training.epoch import Split
from jax_s6.training.lanes import GroupTrainer, state_shapes
from jax_s6.training.plan import Plan
from jax_s6.training.state import Program
from jax_s6.training.trainer import Trainer, make_mesh

NUM_STEPS = 12


def print_estimate(trainers: Sequence[GroupTrainer], plan: Plan, prune: bool) -> None:
    """Measures a few steps, and prints estimated memory and time."""
    states = sum(len(t.group.lanes) * state_bytes(plan, t) for t in trainers)
    data = trainers[0].data.nbytes
    working = max(t.arrangement.width * t.group.config.batch_size for t in trainers) * BYTES_PER_IMAGE
    say(
        f"memory: images {_megabytes(data)} and work {_megabytes(working)} on each device; states"
        f" {_megabytes(states)} on the host, {_megabytes(states / plan.num_lanes)} a lane"
    )
    rate, compile_seconds = measure(trainers[0], plan)
    images = sum(n * t.images_per_epoch for n, t in zip(lane_epochs(trainers, plan, prune), trainers, strict=True))
    seconds = images / rate + compile_seconds * len(trainers)
    say(
        f"time: about {_duration(seconds)}, of which compiling {_duration(compile_seconds * len(trainers))}, at"
        f" {rate:,.0f} model-images/s (measured on {NUM_STEPS} steps of group 1)"
    )


def state_bytes(plan: Plan, trainer: GroupTrainer) -> int:
    """Bytes of one lane's state."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state_shapes(plan, trainer.group)))


def lane_epochs(trainers: Sequence[GroupTrainer], plan: Plan, prune: bool) -> list[int]:
    """Counts each group's epochs of single lanes; with pruning, as if each group lost half of its lanes at a rung."""
    counts = []
    for trainer in trainers:
        epochs, lanes = trainer.group.config.num_epochs, len(trainer.group.lanes)
        rungs = grids.rungs(plan.num_epochs) if prune else ()
        counts.append(sum(-(-lanes // 2 ** sum(rung < epoch for rung in rungs)) for epoch in range(1, epochs + 1)))
    return counts


def measure(trainer: GroupTrainer, plan: Plan) -> tuple[float, float]:
    """Trains one chunk of a group for a few steps.

    Returns:
        Model-images per second, and seconds of compiling.
    """
    at, config = trainer.arrangement, trainer.group.config
    images, labels = (x[: NUM_STEPS * config.batch_size] for x in trainer.data.splits[0])
    program = Program(dataclasses.replace(config, num_epochs=1), len(labels), trainer.data.num_classes)
    group = Trainer(program, make_mesh(at.devices, at.lane_devices), at.width)
    hyper = group.put_lanes(plan.hyperparameters(np.resize(trainer.group.lanes, at.chunk)))
    split, start = group.put_shared(Split(images, labels)), time.perf_counter()
    state = group.create(hyper)
    train = group.train.lower(hyper, state, jnp.int32(0), split).compile()
    compile_seconds = time.perf_counter() - start
    state, _ = jax.block_until_ready(train(hyper, state, jnp.int32(0), split))
    start = time.perf_counter()
    jax.block_until_ready(train(hyper, state, jnp.int32(1), split))
    seconds = time.perf_counter() - start
    return at.chunk * program.steps_per_epoch * config.batch_size / seconds, compile_seconds


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e8 else f"{size / 1e9:,.1f} GB"


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1.5 else f"{minutes:.0f} min" if minutes >= 1.5 else f"{seconds:.0f} s"
