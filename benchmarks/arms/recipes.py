"""Recipes that both our arms and PyTorch's train. Imports no framework."""

import dataclasses
import math

from jax_s6.config import RECIPES, AugmentConfig, OptimizerConfig, TrainConfig
from jax_s6.settings import flatten, replace

QUALITY = TrainConfig(num_epochs=1, optimizer=OptimizerConfig(learning_rate=0.1))
STRENGTHS = ("rotation", "shift", "scale", "shear", "elastic")
# Settings that PyTorch's arm has; a recipe that changes another one is not what it could train.
IN_TORCH = {
    *("recipe", "seed", "num_epochs", "batch_size", "label_smoothing", "optimizer", "learning_rate", "momentum"),
    *("nesterov", "weight_decay", "schedule", "warmup_fraction", "initial_fraction", "final_fraction", "convolution"),
    *("precision", "rotation", "shift", "scale", "shear", "elastic", "anneal_fraction"),
    *("dropout_conv1", "dropout_conv2", "dropout_conv3"),
}


def named(name: str, precision: str = "float32") -> TrainConfig:
    """Returns recipe ``best`` as it is now, or ``quality``."""
    return replace({"best": RECIPES["best"], "quality": QUALITY}[name], {"precision": precision})


def require_torch_can(config: TrainConfig) -> None:
    """Checks that PyTorch's arm has all that a recipe asks for.

    Raises:
        ValueError: It does not.
    """
    usual = flatten(TrainConfig())
    for name, value in flatten(config).items():
        if name not in IN_TORCH and value != usual[name]:
            raise ValueError(f"the recipe has {name} {value}, which PyTorch's arm has not")
    if config.optimizer.optimizer not in ("sgd", "adamw"):
        raise ValueError(f"the recipe's optimizer is {config.optimizer.optimizer}, which PyTorch does not have")


def annealed(strengths: AugmentConfig, progress: float) -> AugmentConfig:
    """The strengths at a point of the run, as ``jax_s6.augment.annealed`` has them."""
    if not strengths.anneal_fraction:
        return strengths
    factor = min(1.0, (1 - progress) / strengths.anneal_fraction)
    return dataclasses.replace(strengths, **{name: factor * getattr(strengths, name) for name in STRENGTHS})


def relative_rate(optimizer: OptimizerConfig, progress: float) -> float:
    """The learning rate over its peak, as ``jax_s6.optim.relative_rate`` has it, for schedules that PyTorch's arm has.

    Raises:
        ValueError: It has not got this one.
    """

    def cosine(start: float, end: float, fraction: float) -> float:
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(fraction, 0), 1)))

    first, last, warmup = optimizer.initial_fraction, optimizer.final_fraction, optimizer.warmup_fraction
    if optimizer.schedule == "constant":
        return 1.0
    if optimizer.schedule == "cosine":
        return cosine(1, last, progress)
    if optimizer.schedule == "linear":
        return 1 + (last - 1) * progress
    if optimizer.schedule in ("one_cycle", "warmup_cosine"):
        if progress >= warmup:
            return cosine(1, last, (progress - warmup) / (1 - warmup))
        rise = progress / warmup
        return cosine(first, 1, rise) if optimizer.schedule == "one_cycle" else first + (1 - first) * rise
    raise ValueError(f"PyTorch's arm has no schedule {optimizer.schedule}")
