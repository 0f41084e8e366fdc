"""One lane, one batch: loss, training step, evaluation step. Pure functions; sums and counts, never means."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp

from jax_s6.config import Hyperparameters
from jax_s6.training.augmentation import annealed, augment
from jax_s6.training.state import Keys, Program, TrainState


class Metrics(NamedTuple):
    """Sums over images, each a float32 or int32 scalar; divide by ``count`` once, at the end."""

    loss: jax.Array
    correct: jax.Array
    count: jax.Array


class TrainMetrics(NamedTuple):
    """Sums over the images of training steps, float32 scalars: one vector a step. Counts are exact to 2**24 images.

    Attributes:
        loss: Before the steps' updates.
        correct: Likewise.
        count: Images.
        gradient_norm: Euclidean norm of the gradient of the mean loss, counted once for each image of its step.
        update_norm: Of what the optimizer adds to the parameters, likewise.
    """

    loss: jax.Array
    correct: jax.Array
    count: jax.Array
    gradient_norm: jax.Array
    update_norm: jax.Array


def cross_entropy(logits: jax.Array, labels: jax.Array, num_classes: int, smoothing: Any) -> jax.Array:
    """Computes each image's cross-entropy over the 16 outputs, the target smoothed over the real classes.

    Args:
        logits: float32 ``[batch, 16]``.
        labels: int32 ``[batch]``, in ``[0, num_classes)``.
        num_classes: Real classes.
        smoothing: The target is ``1 - smoothing`` on the label and ``smoothing / num_classes`` on each real class.

    Returns:
        float32 ``[batch]``.
    """
    log_probs = jax.nn.log_softmax(logits)
    is_label = jax.nn.one_hot(labels, log_probs.shape[1], dtype=bool)
    nll = -jnp.where(is_label, log_probs, 0.0).sum(1)  # a gather's gradient would be a scatter
    return (1 - smoothing) * nll - smoothing * log_probs[:, :num_classes].mean(1)


def loss_fn(
    params: Any,
    batch_stats: Any,
    program: Program,
    hyper: Hyperparameters,
    images: jax.Array,
    labels: jax.Array,
    dropout_keys: chex.PRNGKey | None,
) -> tuple[jax.Array, tuple[Any, jax.Array]]:
    """Computes this device's share of the batch's mean loss.

    Args:
        params: Parameters.
        batch_stats: Running statistics before the step.
        program: The static part.
        hyper: The lane's numbers.
        images: uint8 or float32 ``[batch, 28, 28, 1]`` in ``[0, 255]``: this device's part of the batch.
        labels: int32 ``[batch]``.
        dropout_keys: ``[batch]``, or None.

    Returns:
        The share, which added over the batch axis is the mean loss; then the new statistics, and the part's
        sums of losses and of right answers, float32 ``[2]``.
    """
    logits, updates = program.net().apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        dropout_rates=(hyper.dropout_conv1, hyper.dropout_conv2, hyper.dropout_conv3),
        dropout_keys=dropout_keys,
        mutable=["batch_stats"],
    )
    loss = cross_entropy(logits, labels, program.num_classes, hyper.label_smoothing).sum()
    correct = (logits.argmax(1) == labels).sum(dtype=loss.dtype)
    return loss / program.config.batch_size, (updates["batch_stats"], jnp.stack([loss, correct]))


def train_step(
    program: Program, hyper: Hyperparameters, keys: Keys, state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[TrainState, TrainMetrics]:
    """Takes one step on one batch, or none if the lane has diverged.

    Args:
        program: The static part.
        hyper: The lane's numbers.
        keys: The lane's keys.
        state: The state before the step.
        images: uint8 ``[batch, 28, 28, 1]``: this device's part of the batch.
        labels: int32 ``[batch]``.

    Returns:
        The state after the step, and the whole batch's sums.
    """
    config = program.config
    positions = jnp.arange(labels.size, dtype=jnp.int32)
    if program.axis_name is not None:
        positions += jax.lax.axis_index(program.axis_name) * labels.size

    # A key an image, so that how a batch is split changes nothing; one hash for both purposes, which compiles sooner.
    purposes = ((keys.augment, config.augment.enabled), (keys.dropout, config.model.uses_dropout))
    used = [key for key, on in purposes if on]
    if used:
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(jnp.stack(used), state.step)
        used = list(jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(step_keys, positions))
    if config.augment.enabled:
        strengths = annealed(hyper, state.step.astype(jnp.float32) / program.num_steps)
        images = augment(used[0], images, strengths)
    dropout_keys = used[-1] if config.model.uses_dropout else None
    (_, (batch_stats, sums)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params, state.batch_stats, program, hyper, images, labels, dropout_keys
    )
    flat_grads, unravel = jax.flatten_util.ravel_pytree(grads)
    if program.axis_name is not None:  # one sum over the devices, since each costs its latency
        total = jax.lax.psum(jnp.concatenate([flat_grads, sums]), program.axis_name)
        flat_grads, sums = total[:-2], total[-2:]
    loss, correct = sums
    updates, opt_state = program.optimizer(hyper).update(unravel(flat_grads), state.opt_state, state.params)
    flat_updates = jax.flatten_util.ravel_pytree(updates)[0]
    diverged_at = jnp.where((state.diverged_at < 0) & ~jnp.isfinite(loss), state.step, state.diverged_at)
    alive = diverged_at < 0
    params = unravel(jax.flatten_util.ravel_pytree(state.params)[0] + jnp.where(alive, flat_updates, 0.0))
    flat_stats, unravel_stats = jax.flatten_util.ravel_pytree(batch_stats)
    step, flat_stats, opt_state = jax.tree.map(
        functools.partial(jnp.where, alive),
        (state.step + 1, flat_stats, opt_state),
        (state.step, jax.flatten_util.ravel_pytree(state.batch_stats)[0], state.opt_state),
    )
    batch_stats = unravel_stats(flat_stats)
    count = jnp.float32(config.batch_size)
    norms = (count * jnp.linalg.norm(flat) for flat in (flat_grads, flat_updates))
    return TrainState(step, params, batch_stats, opt_state, diverged_at), TrainMetrics(loss, correct, count, *norms)


def eval_step(program: Program, state: TrainState, images: jax.Array, labels: jax.Array, valid: jax.Array) -> Metrics:
    """Judges one batch with the running statistics.

    Args:
        program: The static part.
        state: The lane's state.
        images: uint8 ``[batch, 28, 28, 1]``.
        labels: int32 ``[batch]``.
        valid: bool ``[batch]``: images that are only padding are False and do not count.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits: Any = program.net().apply(variables, images, train=False)
    losses = cross_entropy(logits, labels, program.num_classes, 0.0)
    correct = (logits.argmax(1) == labels) & valid
    return Metrics(jnp.where(valid, losses, 0.0).sum(), correct.sum(), valid.sum())
