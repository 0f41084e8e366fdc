"""An estimate of a sweep before it starts: memory from its sizes, time from a few steps of its first group."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from jax_s6.config import StaticSettings
from jax_s6.runs.console import say
from jax_s6.runs.engine import Run
from jax_s6.training.arrangement import BYTES_PER_IMAGE
from jax_s6.training.epoch import Split
from jax_s6.training.lanes import GroupTrainer, state_shapes
from jax_s6.training.plan import Plan, rungs
from jax_s6.training.state import Program
from jax_s6.training.trainer import Trainer, make_mesh

NUM_STEPS = 12


def print_estimate(run: Run) -> None:
    """Measure a few steps, and print the estimated memory and time."""
    trainers, plan = run.trainers, run.plan
    states = sum(len(t.group.lanes) * state_bytes(plan, t) for t in trainers)
    data = trainers[0].data.nbytes
    working = max(t.arrangement.width * t.group.config.batch_size for t in trainers) * BYTES_PER_IMAGE
    say(
        f"memory: images {_megabytes(data)} and work {_megabytes(working)} on each device; states"
        f" {_megabytes(states)} on the host, {_megabytes(states / plan.num_lanes)} per lane"
    )
    rate, compile_seconds = measure(trainers[0], plan)
    images = sum(lane_epochs(run, trainer) * trainer.images_per_epoch for trainer in trainers)
    seconds = images / rate + compile_seconds * len(trainers)
    say(
        f"time: about {_duration(seconds)}, of which compiling {_duration(compile_seconds * len(trainers))}, at"
        f" {rate:,.0f} model-images/s (measured on {NUM_STEPS} steps of group 1)"
    )


def state_bytes(plan: Plan, trainer: GroupTrainer) -> int:
    """Return the size of one lane's state in bytes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state_shapes(plan, trainer.group)))


def lane_epochs(run: Run, trainer: GroupTrainer) -> int:
    """Return a group's number of epochs summed over lanes; pruning is assumed to halve each group at each rung."""
    epochs, lanes = trainer.group.config.num_epochs, len(trainer.group.lanes)
    stops = rungs(run.plan.num_epochs) if run.prune else ()
    return sum(-(-lanes // 2 ** sum(stop < epoch for stop in stops)) for epoch in range(1, epochs + 1))


def measure(trainer: GroupTrainer, plan: Plan) -> tuple[float, float]:
    """Train one chunk of a group for a few steps.

    Returns:
        Model-images per second, and the time to compile in seconds.
    """
    at, config = trainer.arrangement, trainer.group.config
    images, labels = (x[: NUM_STEPS * config.batch_size] for x in trainer.data.splits[0])
    program = Program(StaticSettings.of(config)._replace(num_epochs=1), len(labels), trainer.data.num_classes)
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
