"""Our arms that train real epochs: whole-epoch seconds, seconds to an accuracy, accuracies of six rates."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.arms import recipes
from benchmarks.arms.jax_tools import count
from benchmarks.worker import Task
from jax_s6 import backend
from jax_s6.config import AugmentConfig, DataConfig
from jax_s6.data import dataset as data
from jax_s6.network import net as model
from jax_s6.sweep import run as sweep
from jax_s6.train import command as train

_kept: dict[Any, Any] = {}
"""Runs of this process, which serve several cases."""


def num_params() -> int:
    """Counts the parameters that a run draws."""
    return count(jax.eval_shape(model.init, jax.random.key(0))["params"])


def first_images(number: int) -> data.Dataset:
    """MNIST with so many training images."""
    dataset = data.load(DataConfig(data_dir=data.EMBEDDED))
    images, labels = dataset.train_images[:number], dataset.train_labels[:number]
    return dataclasses.replace(dataset, train_images=images, train_labels=labels)


def epoch(*, images: int, precision: str = "float32", augmented: bool = True) -> Task:
    """Trains an epoch as ``python -m jax_s6.train`` does, without the judging; the images are on the devices."""
    backend.use_cpu_devices()
    config = recipes.named("best", precision)
    config = config if augmented else dataclasses.replace(config, augment=AugmentConfig())
    trainer, (split, *_) = train.prepare(config, first_images(images))
    hyper = train.Hyperparameters(*([value] for value in train.Hyperparameters.of(config)))
    hyper = trainer.put_lanes(hyper)
    holder = [trainer.create(hyper)]
    compiled = trainer.train.lower(hyper, holder[0], jnp.int32(0), split).compile()

    def run(n: int) -> None:
        for _ in range(n):
            holder[0], _ = compiled(hyper, holder[0], jnp.int32(0), split)
        jax.block_until_ready(holder[0])

    return Task(run, trainer.program.steps_per_epoch * config.batch_size, num_params(), repeatable=False)


def run(*, percent: float, recipe: str, precision: str = "float32") -> Task:
    """Looks up when a run of the recipe reached an accuracy; round k is seed k."""
    backend.use_cpu_devices()
    dataset = first_images(60_000)
    seeds = iter(range(1_000))

    def sample(n: int) -> dict[str, Any]:
        config = dataclasses.replace(recipes.named(recipe, precision), seed=next(seeds))
        if config.seed not in _kept:
            _kept[config.seed] = train.train(config, dataset).history
        return reached(_kept[config.seed], percent)

    return Task(sample, 1, num_params(), repeatable=False)


def reached(history: list[dict[str, Any]], percent: float) -> dict[str, Any]:
    """Returns the seconds until the first epoch at the target.

    Raises:
        ValueError: There is none.
    """
    seconds = 0.0
    for row in history:
        seconds += row["seconds"]
        if row["test_accuracy"] >= percent / 100:
            return {"seconds": seconds, "text": f"at epoch {row['epoch']} of {len(history)}"}
    best = max(row["test_accuracy"] for row in history)
    raise ValueError(f"no epoch reached {percent} %: the best of {len(history)} had {best:.2%} after {seconds:.0f} s")


def quality(*, learning_rate: float, precision: str = "float32") -> Task:
    """Looks up a lane of the six-rate sweep with three seeds; round k is seed k."""
    backend.use_cpu_devices()
    if "rows" not in _kept:
        grid = {"learning_rate": (0.1, 0.2, 0.5, 0.8, 1.0, 2.0), "seed": range(3)}
        result = sweep.sweep(recipes.named("quality", precision), grid, first_images(60_000))
        _kept["rows"] = {(row["learning_rate"], row["seed"]): row for row in result.rows}
        _kept["seconds"] = result.summary["train_seconds"] / len(result.rows)
    seeds = iter(range(3))

    def sample(n: int) -> dict[str, Any]:
        row = _kept["rows"][(learning_rate, next(seeds))]
        return {"seconds": _kept["seconds"], "percent": 100 * row["test_accuracy"]}

    return Task(sample, 60_000, num_params(), repeatable=False)
