"""jax_s6 training real epochs: seconds per epoch, seconds to an accuracy, and accuracies of six learning rates."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.arms import recipes
from benchmarks.arms.jax_tools import count, training_task
from benchmarks.arms.ours import lane_numbers
from benchmarks.worker import Task
from jax_s6 import backend
from jax_s6.config import AugmentConfig, Hyperparameters
from jax_s6.network import net as model
from jax_s6.sweep import sweep
from jax_s6.train import train
from jax_s6.train.run import make_run
from jax_s6.training.trainer import Trainer, make_mesh


def num_params() -> int:
    """Return the number of parameters that a run has."""
    return count(jax.eval_shape(model.init, jax.random.key(0))["params"])


def epoch(*, images: int, precision: str = "float32", augmented: bool = True) -> Task:
    """Train an epoch as ``python -m jax_s6.train`` does, without the evaluation. The images are on the devices."""
    backend.use_cpu_devices()
    config = recipes.named("best", precision)
    config = config if augmented else dataclasses.replace(config, augment=AugmentConfig())
    group = make_run(config, recipes.first_images(images)).trainers[0]
    trainer = Trainer(group.program, make_mesh(group.arrangement.devices))
    split = group.data.place(trainer, group.arrangement.devices)[0]
    hyper = lane_numbers(trainer, Hyperparameters.of(config))
    state = trainer.create(hyper)
    compiled = trainer.train.lower(hyper, state, jnp.int32(0), split).compile()
    images_seen = trainer.program.steps_per_epoch * config.batch_size
    details = {"num_params": num_params(), "repeatable": False, "profile": None}
    return training_task(lambda state: compiled(hyper, state, jnp.int32(0), split), state, [()], images_seen, **details)


@functools.cache
def _history(recipe: str, precision: str, seed: int) -> list[dict[str, Any]]:
    """Train a run, which serves all accuracies."""
    config = dataclasses.replace(recipes.named(recipe, precision), seed=seed)
    return train(config, recipes.first_images(recipes.NUM_IMAGES)).history


def run(*, percent: float, recipe: str, precision: str = "float32") -> Task:
    """Look up when a run of the recipe reached an accuracy. Round k has seed k."""
    backend.use_cpu_devices()
    return recipes.task_per_seed(
        lambda seed: recipes.reached(_history(recipe, precision, seed), percent), 1, num_params()
    )


@functools.cache
def _sweep(precision: str) -> Any:
    """Train six learning rates with three seeds each, which serve all cases."""
    grid = {"learning_rate": (0.1, 0.2, 0.5, 0.8, 1.0, 2.0), "seed": range(3)}
    return sweep(recipes.named("quality", precision), grid, recipes.first_images(recipes.NUM_IMAGES))


def quality(*, learning_rate: float, precision: str = "float32") -> Task:
    """Look up a lane of a sweep. Round k has seed k."""
    backend.use_cpu_devices()
    result = _sweep(precision)
    accuracies = {(row["learning_rate"], row["seed"]): row["test_accuracy"] for row in result.rows}
    seconds = result.summary["train_seconds"] / len(result.rows)

    def sample(seed: int) -> dict[str, Any]:
        return {"seconds": seconds, "percent": 100 * accuracies[learning_rate, seed]}

    return recipes.task_per_seed(sample, recipes.NUM_IMAGES, num_params())
