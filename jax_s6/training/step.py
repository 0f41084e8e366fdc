"""One lane and one batch: the training step and the evaluation step, as pure functions.

They return sums and counts, never means.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float32, Int32, Key

from jax_s6.config import Hyperparameters
from jax_s6.network.chunks import sum_over_devices
from jax_s6.training.augmentation import annealed, augment
from jax_s6.training.loss import Images, Labels, cross_entropy, eval_logits, loss_gradients
from jax_s6.training.state import Keys, Program, TrainState


class Metrics(NamedTuple):
    """Sums over images. Divide by ``count`` once, at the end."""

    loss: Float32[Array, ""]
    correct: Int32[Array, ""]
    count: Int32[Array, ""]


class TrainMetrics(NamedTuple):
    """Sums over the images of training steps. All are float32, as one vector per step; counts are exact to 2**24.

    Attributes:
        loss: The losses before the steps' updates.
        correct: The number of correct predictions before the updates.
        count: The number of images.
        gradient_norm: The Euclidean norm of the gradient of the mean loss, counted once for each image of its step.
        update_norm: The norm of what the optimizer adds to the parameters, counted in the same way.
    """

    loss: Float32[Array, ""]
    correct: Float32[Array, ""]
    count: Float32[Array, ""]
    gradient_norm: Float32[Array, ""]
    update_norm: Float32[Array, ""]


def train_step(
    program: Program, hyper: Hyperparameters, keys: Keys, state: TrainState, images: Images, labels: Labels
) -> tuple[TrainState, TrainMetrics]:
    """Take one step on one batch, of which each device has a part; change nothing if the lane has diverged.

    Returns:
        The state after the step, and the sums of the whole batch.
    """
    images, dropout_keys = _randomize(program, hyper, keys, state.step, images)
    grads, batch_stats, sums = loss_gradients(
        program, state.params, state.batch_stats, hyper, images, labels, dropout_keys
    )
    flat_grads, unravel = ravel_pytree(grads)
    total = sum_over_devices(jnp.concatenate([flat_grads, sums]), program.axis_name)  # one sum: each costs its latency
    flat_grads, sums = total[:-2], total[-2:]
    loss, correct = sums
    updates, opt_state = program.optimizer(hyper).update(unravel(flat_grads), state.opt_state, state.params)
    flat_updates = ravel_pytree(updates)[0]
    diverged_at = jnp.where((state.diverged_at < 0) & ~jnp.isfinite(loss), state.step, state.diverged_at)
    alive = diverged_at < 0
    params = unravel(ravel_pytree(state.params)[0] + jnp.where(alive, flat_updates, 0.0))
    flat_stats, unravel_stats = ravel_pytree(batch_stats)
    step, flat_stats, opt_state = jax.tree.map(
        functools.partial(jnp.where, alive),
        (state.step + 1, flat_stats, opt_state),
        (state.step, ravel_pytree(state.batch_stats)[0], state.opt_state),
    )
    batch_stats = unravel_stats(flat_stats)
    count = jnp.float32(program.config.batch_size)
    norms = (count * jnp.linalg.norm(flat) for flat in (flat_grads, flat_updates))
    return TrainState(step, params, batch_stats, opt_state, diverged_at), TrainMetrics(loss, correct, count, *norms)


def _randomize(
    program: Program, hyper: Hyperparameters, keys: Keys, step: Int32[Array, ""], images: Images
) -> tuple[Images | Float32[Array, "batch height width 1"], Key[Array, " batch"] | None]:
    """Augment this device's part of a batch, and derive the keys of its dropout, as far as the program has them.

    There is one key per image, so that it does not matter how the batch is split. One hash serves both purposes, which
    compiles faster.
    """
    config, num_images = program.config, len(images)
    positions = jnp.arange(num_images, dtype=jnp.int32)
    if program.axis_name is not None:
        positions += jax.lax.axis_index(program.axis_name) * num_images
    purposes = ((keys.augment, config.augments), (keys.dropout, config.uses_dropout))
    used = [key for key, on in purposes if on]
    if used:
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(jnp.stack(used), step)
        used = list(jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(step_keys, positions))
    if config.augments:
        strengths = annealed(hyper, step.astype(jnp.float32) / program.num_steps)
        images = augment(used[0], images, strengths)
    return images, used[-1] if config.uses_dropout else None


def eval_step(
    program: Program, state: TrainState, images: Images, labels: Labels, valid: Bool[Array, " batch"]
) -> Metrics:
    """Evaluate one batch with the running statistics; images that are not valid, only padding, do not count."""
    logits = eval_logits(program, {"params": state.params, "batch_stats": state.batch_stats}, images)
    losses = cross_entropy(logits, labels, program.num_classes, 0.0)
    correct = (logits.argmax(1) == labels) & valid
    return Metrics(jnp.where(valid, losses, 0.0).sum(), correct.sum(), valid.sum())
