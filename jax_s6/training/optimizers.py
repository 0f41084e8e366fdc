"""A lane's learning-rate schedule and its Optax optimizer. All numbers may be traced; the kinds are static."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jax_s6.config import Hyperparameters, OptimizerConfig, StaticSettings

Times = Float[Array, "*times"]


def _cosine(start: Any, end: Any, fraction: jax.Array) -> jax.Array:
    """Return half a cosine from ``start`` at 0 to ``end`` at 1, constant outside."""
    return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(fraction, 0, 1)))


def _linear(start: Any, end: Any, fraction: jax.Array) -> jax.Array:
    """Return a straight line from ``start`` at 0 to ``end`` at 1, constant outside."""
    return start + (end - start) * jnp.clip(fraction, 0, 1)


def relative_rate(schedule: str, hyper: Hyperparameters, progress: Times, epoch: Times) -> Times:
    """Compute the learning rate divided by its peak.

    Optax's schedules branch in Python on numbers that are traced here, so the formulas are written out.

    Args:
        schedule: The kind of schedule.
        hyper: The lane's numbers; each schedule uses those that its formula names.
        progress: The number of steps taken, as a fraction of the steps of the whole run.
        epoch: The number of epochs trained so far, with their fraction.

    Returns:
        With ``t = progress``, ``w = warmup_fraction``, ``i = initial_fraction`` and ``f = final_fraction``:

        ============= ==========================================================================================
        constant      1
        step          decay_rate ** floor(epoch / decay_epochs); ``torch.optim.lr_scheduler.StepLR``
        exponential   decay_rate ** (epoch / decay_epochs); ``ExponentialLR``, changing every step
        cosine        f + (1 - f) (1 + cos(pi t)) / 2; ``CosineAnnealingLR``
        linear        1 + (f - 1) t; ``LinearLR``
        warmup_cosine linear from i to 1 for t < w, then a cosine to f
        one_cycle     half a cosine from i to 1 for t < w, then a cosine to f; ``OneCycleLR``
        ============= ==========================================================================================
    """
    warmup, rest = progress / hyper.warmup_fraction, (progress - hyper.warmup_fraction) / (1 - hyper.warmup_fraction)
    first, last = hyper.initial_fraction, hyper.final_fraction
    formulas: dict[str, Callable[[], jax.Array]] = {
        "constant": lambda: jnp.ones_like(progress),
        "step": lambda: hyper.decay_rate ** jnp.floor(epoch / hyper.decay_epochs),
        "exponential": lambda: hyper.decay_rate ** (epoch / hyper.decay_epochs),
        "cosine": lambda: _cosine(1.0, last, progress),
        "linear": lambda: _linear(1.0, last, progress),
        "warmup_cosine": lambda: jnp.where(warmup < 1, _linear(first, 1.0, warmup), _cosine(1.0, last, rest)),
        "one_cycle": lambda: jnp.where(warmup < 1, _cosine(first, 1.0, warmup), _cosine(1.0, last, rest)),
    }
    return formulas[schedule]()


def make_schedule(
    config: OptimizerConfig | StaticSettings, hyper: Hyperparameters, num_steps: int, steps_per_epoch: int
) -> optax.Schedule:
    """Make the function from a step's number (int32, from 0) to its learning rate (float32)."""

    def schedule(step: ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        return hyper.learning_rate * relative_rate(config.schedule, hyper, step / num_steps, step / steps_per_epoch)

    return schedule


def make_optimizer(
    config: OptimizerConfig | StaticSettings, hyper: Hyperparameters, num_steps: int, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Make a lane's optimizer: ``torch.optim.SGD``, or AdamW, with weight decay of the convolution kernels only."""
    schedule = make_schedule(config, hyper, num_steps, steps_per_epoch)
    if config.optimizer == "adamw":
        return optax.adamw(schedule, b1=hyper.momentum, weight_decay=hyper.weight_decay, mask=kernels_only)
    return optax.chain(
        optax.add_decayed_weights(hyper.weight_decay, mask=kernels_only),
        # as one vector: on a CPU, one operation for each of 24 small arrays costs more than the arithmetic
        optax.flatten(optax.sgd(schedule, momentum=hyper.momentum, nesterov=config.nesterov)),
    )


def kernels_only(params: Any) -> Any:
    """Mark the convolution kernels, which are the only arrays with four dimensions."""
    return jax.tree.map(lambda p: p.ndim == 4, params)
