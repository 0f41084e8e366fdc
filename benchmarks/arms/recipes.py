"""What the arms share that train real epochs of a recipe, in jax_s6 and in PyTorch."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.worker import Task
from jax_s6 import data
from jax_s6.config import RECIPES, AugmentConfig, DataConfig, OptimizerConfig, TrainConfig
from jax_s6.settings import flatten, replace

NUM_IMAGES = 60_000
QUALITY = TrainConfig(num_epochs=1, optimizer=OptimizerConfig(learning_rate=0.1))
STRENGTHS = ("rotation", "shift", "scale", "shear", "elastic")
# The settings that the arm in PyTorch has. It cannot train a recipe that changes another one.
IN_TORCH = {
    *("recipe", "seed", "num_epochs", "batch_size", "learning_rate", "momentum", "nesterov", "schedule"),
    *("warmup_fraction", "initial_fraction", "final_fraction", "decay_rate", "decay_epochs", "precision"),
    *("dropout_conv1", "dropout_conv2", "dropout_conv3", *STRENGTHS, "anneal_fraction"),
}


def named(name: str, precision: str = "float32") -> TrainConfig:
    """Return recipe ``best`` as it is now, or ``quality``."""
    return replace({"best": RECIPES["best"], "quality": QUALITY}[name], {"precision": precision})


@functools.cache
def first_images(number: int) -> data.Dataset:
    """Return MNIST with only the first of the training images."""
    dataset = data.load(DataConfig(data_dir=data.EMBEDDED))
    images, labels = dataset.train_images[:number], dataset.train_labels[:number]
    return dataclasses.replace(dataset, train_images=images, train_labels=labels)


def task_per_seed(sample: Callable[[int], dict[str, Any]], images: int, num_params: int) -> Task:
    """Return a task whose round k is ``sample(k)``, the results of the run with seed k."""
    seeds = itertools.count()
    return Task(lambda n: sample(next(seeds)), images, num_params, repeatable=False)


def reached(history: Sequence[Mapping[str, Any]], percent: float) -> dict[str, Any]:
    """Return the seconds until the end of the first epoch that reached an accuracy.

    Raises:
        ValueError: No epoch did.
    """
    seconds = 0.0
    for row in history:
        seconds += row["seconds"]
        if row["test_accuracy"] >= percent / 100:
            return {"seconds": seconds, "text": f"at epoch {row['epoch']} of {len(history)}"}
    best = max(row["test_accuracy"] for row in history)
    raise ValueError(f"no epoch reached {percent} %: the best of {len(history)} had {best:.2%} after {seconds:.0f} s")


def require_torch_can(config: TrainConfig) -> None:
    """Raise ValueError if a recipe changes a setting that the arm in PyTorch does not have."""
    usual = flatten(TrainConfig())
    for name, value in flatten(config).items():
        if name not in IN_TORCH and value != usual[name]:
            raise ValueError(f"the recipe sets {name} to {value}, which the arm in PyTorch does not have")


def annealed(strengths: AugmentConfig, progress: float) -> AugmentConfig:
    """Return the strengths at a point of the run, 0 to 1, as ``jax_s6.training.augmentation`` anneals them."""
    if not strengths.anneal_fraction:
        return strengths
    factor = min(1.0, (1 - progress) / strengths.anneal_fraction)
    return dataclasses.replace(strengths, **{name: factor * getattr(strengths, name) for name in STRENGTHS})
