"""jax_s6 itself: the training step of one network, and a sweep of many."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.arms import work
from benchmarks.arms.jax_tools import compile_timed, count, trace, training_task
from benchmarks.worker import Task, repeated
from jax_s6 import backend, data
from jax_s6.config import (
    RECIPES,
    AugmentConfig,
    Hyperparameters,
    ModelConfig,
    OptimizerConfig,
    StaticSettings,
    TrainConfig,
)
from jax_s6.network import weights
from jax_s6.training import plan as grid
from jax_s6.training.arrangement import arrange
from jax_s6.training.epoch import Split
from jax_s6.training.lanes import GroupTrainer, make_trainers
from jax_s6.training.state import Program
from jax_s6.training.trainer import LANE_AXIS, Trainer, make_mesh


def make_config(batch: int, precision: str, convolution: str = "auto", augmented: bool = False) -> TrainConfig:
    """Return jax_s6's settings for the training that is measured."""
    return TrainConfig(
        batch_size=batch,
        model=ModelConfig(convolution=convolution, precision=precision),  # pyright: ignore[reportArgumentType]
        optimizer=OptimizerConfig(learning_rate=work.LEARNING_RATE, momentum=work.MOMENTUM),
        augment=RECIPES["best"].augment if augmented else AugmentConfig(),
    )


def train_step(
    *, batch: int, precision: str = "float32", convolution: str = "auto", augmented: bool = False, devices: Any = None
) -> Task:
    """Train one lane for short epochs, each a scan of steps over uint8 images, half a second long."""
    backend.use_cpu_devices()
    config = make_config(batch, precision, convolution, augmented)
    steps = work.steps(batch, jax.default_backend())
    steps = 4 if convolution == "xla" and jax.default_backend() == "cpu" else steps
    images, labels = work.digits(steps * batch)
    found = jax.devices()[:devices]
    if devices is not None and devices > len(found):
        raise ValueError(f"it needs {devices} devices, and there are {len(found)}")
    mesh = make_mesh(arrange(1, batch, found, 1, explicit=devices is not None).devices)
    trainer = Trainer(Program(StaticSettings.of(config), len(labels)), mesh)
    hyper = lane_numbers(trainer, Hyperparameters.of(config))
    train = trainer.put_shared(Split(images, labels))
    state = trainer.create(hyper)
    epoch, compile_seconds = compile_timed(trainer.train, hyper, state, jnp.int32(0), train)
    details: dict[str, Any] = {"num_params": count(state.params), "compile_seconds": compile_seconds}
    details |= {"losses": check_losses(config, mesh), "info": {"devices": mesh.size, "steps": steps}}
    return training_task(lambda state: epoch(hyper, state, jnp.int32(0), train), state, [()], len(labels), **details)


def lane_numbers(trainer: Trainer, numbers: Hyperparameters, num_lanes: int = 1) -> Hyperparameters:
    """Return the same hyperparameters for each lane, on the devices."""
    return trainer.put_lanes(Hyperparameters(*([value] * num_lanes for value in numbers)))


def check_losses(config: TrainConfig, mesh: Any, width: int = 1) -> list[float]:
    """Train two steps on the reference's batch from its weights; return each step's loss, of the worst lane.

    An epoch of one step is a whole batch in some order, and the mean loss does not depend on the order. Augmentation
    stays in the program, with strengths of 0, with which it changes nothing.
    """
    batch, num_lanes = config.batch_size, mesh.shape[LANE_AXIS] * width
    trainer = Trainer(Program(StaticSettings.of(config), batch), mesh, width)
    strengths = {f.name for f in dataclasses.fields(AugmentConfig)} & set(Hyperparameters._fields)
    numbers = Hyperparameters.of(config)._replace(**dict.fromkeys(strengths, 0.0))
    hyper = lane_numbers(trainer, numbers, num_lanes)
    params = weights.from_torch_state_dict(work.state_dict())["params"]
    state = trainer.fetch(trainer.create(hyper))._replace(
        params=jax.tree.map(lambda x: np.stack([x] * num_lanes), params)
    )
    state, split = trainer.put_state(state), trainer.put_shared(Split(*work.digits(batch)))
    losses = []
    for epoch in range(2):
        state, metrics = trainer.train(hyper, state, jnp.int32(epoch), split)
        metrics = trainer.fetch(metrics)
        losses.append(work.furthest_from_median(metrics.loss / metrics.count))
    return losses


def sweep(
    *,
    lanes: int,
    batch: int = 64,
    width: int | None = None,
    devices: int | None = None,
    precision: str = "float32",
    convolution: str = "auto",
    sequential: bool = False,
    images: int | None = None,
) -> Task:
    """Train lanes as ``python -m jax_s6.sweep`` does, with states on the host between epochs; or one by one."""
    backend.use_cpu_devices()
    config = make_config(batch, precision, convolution)
    digits = work.digits(images or work.images_per_lane(lanes, batch, jax.default_backend()))
    trainer = group_trainer(config, np.linspace(0.005, 0.015, 1 if sequential else lanes), digits, devices, width)
    trainer.create()
    positions = np.arange(len(trainer.group.lanes))
    start = time.perf_counter()
    trainer.train_epoch(positions)
    first = time.perf_counter() - start

    def train() -> None:
        for _ in range(lanes if sequential else 1):
            trainer.train_epoch(positions)

    run, at = repeated(train), trainer.arrangement
    info = {"devices": len(at.devices), "width": at.width, "first_epoch_seconds": first, "images": len(digits[1])}
    losses = check_losses(config, make_mesh(at.devices, at.lane_devices), at.width)
    num_params = count(trainer.state.params) // len(positions)  # pyright: ignore[reportOptionalMemberAccess]
    profile = functools.partial(trace, run)
    return Task(run, lanes * len(digits[1]), num_params, losses, trainer.compile_seconds, info=info, profile=profile)


def group_trainer(
    config: TrainConfig, rates: Sequence[float] | np.ndarray, digits: Any, devices: int | None, width: int | None
) -> GroupTrainer:
    """Return the sweep's trainer of lanes with different learning rates. It evaluates two images; peers, none."""
    images, labels = digits
    plan = grid.make_plan(config, {"learning_rate": [float(rate) for rate in rates]})
    dataset = data.Dataset("digits", images, labels, images[:2], labels[:2], 10, "")
    chosen = None if devices is None else jax.devices()[:devices]
    return make_trainers(plan, dataset, devices=chosen, width=width)[0]
