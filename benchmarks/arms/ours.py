"""Our arms: the project's own Trainer, on a device a core."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.arms import work
from benchmarks.arms.jax_tools import compile_timed, count, trace
from benchmarks.worker import Task
from jax_s6 import backend
from jax_s6.config import RECIPES, AugmentConfig, Hyperparameters, ModelConfig, OptimizerConfig, TrainConfig
from jax_s6.data import dataset as data
from jax_s6.network import weights
from jax_s6.sweep import run as sweeps
from jax_s6.training import lanes
from jax_s6.training import plan as grid
from jax_s6.training.epoch import Split
from jax_s6.training.state import Program
from jax_s6.training.trainer import LANE_AXIS, Trainer, make_mesh


def make_config(batch: int, precision: str, convolution: str = "auto", augmented: bool = False) -> TrainConfig:
    """The work of ``train_step`` as the project's settings."""
    return TrainConfig(
        batch_size=batch,
        model=ModelConfig(convolution=convolution, precision=precision),  # pyright: ignore[reportArgumentType]
        optimizer=OptimizerConfig(learning_rate=work.LEARNING_RATE, momentum=work.MOMENTUM),
        augment=RECIPES["best"].augment if augmented else AugmentConfig(),
    )


def train_step(
    *, batch: int, precision: str = "float32", convolution: str = "auto", augmented: bool = False, devices: Any = None
) -> Task:
    """One lane's epoch: a scan of as many steps as take about half a second, from uint8 images."""
    backend.use_cpu_devices()
    config = make_config(batch, precision, convolution, augmented)
    steps = work.steps(batch, jax.default_backend())
    steps = 4 if convolution == "xla" and jax.default_backend() == "cpu" else steps
    images, labels = work.digits(steps * batch)
    mesh = make_mesh(backend.batch_devices(batch, devices))
    trainer = Trainer(Program(config, len(labels)), mesh)
    hyper = lane_numbers(trainer, config)
    train = trainer.put_shared(Split(images, labels))
    state = trainer.create(hyper)
    num_params = count(state.params)
    epoch, compile_seconds = compile_timed(trainer.train, hyper, state, jnp.int32(0), train)
    holder = [state]

    def run(n: int) -> None:
        for _ in range(n):
            holder[0], _ = epoch(hyper, holder[0], jnp.int32(0), train)
        jax.block_until_ready(holder[0])

    info = {"devices": len(mesh.devices.ravel()), "steps": steps}
    losses, profile = check_losses(config, mesh), functools.partial(trace, run)
    return Task(run, len(labels), num_params, losses, compile_seconds, info=info, profile=profile)


def lane_numbers(trainer: Trainer, config: TrainConfig, num_lanes: int = 1) -> Hyperparameters:
    """The same numbers for each lane, on the devices."""
    return trainer.put_lanes(Hyperparameters(*([value] * num_lanes for value in Hyperparameters.of(config))))


def check_losses(config: TrainConfig, mesh: Any, width: int = 1) -> list[float]:
    """Trains on the reference's batch and weights for two steps; returns each step's loss, the worst lane's.

    An epoch of one step is a whole batch in some order, and its mean loss does not depend on the order. Augmentation
    stays in the program, with strengths of 0, for which it is the identity.
    """
    batch, num_lanes = config.batch_size, mesh.shape[LANE_AXIS] * width
    trainer = Trainer(Program(config, batch), mesh, width)
    strengths = {f.name for f in dataclasses.fields(AugmentConfig)} & set(Hyperparameters._fields)
    numbers = Hyperparameters.of(config)._replace(**dict.fromkeys(strengths, 0.0))
    hyper = trainer.put_lanes(Hyperparameters(*([value] * num_lanes for value in numbers)))
    params = weights.from_torch_state_dict(work.state_dict())["params"]
    state = trainer.fetch(trainer.create(hyper))._replace(
        params=jax.tree.map(lambda x: np.stack([x] * num_lanes), params)
    )
    state, split = trainer.put_state(state), trainer.put_shared(Split(*work.digits(batch)))
    losses = []
    for epoch in range(2):
        state, metrics = trainer.train(hyper, state, jnp.int32(epoch), split)
        metrics = trainer.fetch(metrics)
        means = metrics.loss / metrics.count
        losses.append(float(means[np.argmax(np.abs(means - np.median(means)))]))
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
    """Lanes as ``python -m jax_s6.sweep`` trains them, states on the host between epochs and all; or one by one."""
    backend.use_cpu_devices()
    config = make_config(batch, precision, convolution)
    digits = work.digits(images or work.images_a_lane(lanes, batch, jax.default_backend()))
    trainer = group_trainer(config, np.linspace(0.005, 0.015, 1 if sequential else lanes), digits, devices, width)
    trainer.create()
    positions = np.arange(len(trainer.group.lanes))
    start = time.perf_counter()
    trainer.train_epoch(positions, lambda count: None)
    first = time.perf_counter() - start

    def run(n: int) -> None:
        for _ in range(n * (lanes if sequential else 1)):
            trainer.train_epoch(positions, lambda count: None)

    at = trainer.arrangement
    info = {"devices": len(at.devices), "width": at.width, "first_epoch_seconds": first, "images": len(digits[1])}
    losses = check_losses(config, make_mesh(at.devices, at.lane_devices), at.width)
    num_params = count(trainer.state.params) // len(positions)  # pyright: ignore[reportOptionalMemberAccess]
    profile = functools.partial(trace, run)
    return Task(run, lanes * len(digits[1]), num_params, losses, trainer.compile_seconds, info=info, profile=profile)


def group_trainer(
    config: TrainConfig, rates: Sequence[float] | np.ndarray, digits: Any, devices: int | None, width: int | None
) -> lanes.GroupTrainer:
    """The sweep's own trainer of lanes that differ in their rates; it judges two images, since peers judge none."""
    images, labels = digits
    plan = grid.make_plan(config, {"learning_rate": [float(rate) for rate in rates]})
    dataset = data.Dataset("digits", images, labels, images[:2], labels[:2], 10, "")
    chosen = None if devices is None else jax.devices()[:devices]
    return sweeps.make_trainers(plan, dataset, chosen, width, sweeps.Listener(), prune=False)[0]
