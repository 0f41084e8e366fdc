"""One epoch of one lane, as a scan over images that stay on the device. Nothing returns to the host before its end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float64, Int32, Key, UInt8

from jax_s6.config import Hyperparameters
from jax_s6.training.state import Keys, Program, TrainState
from jax_s6.training.step import Metrics, TrainMetrics, eval_step, train_step

EVAL_BATCH = 125


class Split(NamedTuple):
    """Images to train on or to evaluate, with their labels."""

    images: UInt8[Array | np.ndarray, "n height width 1"]
    labels: Int32[Array | np.ndarray, " n"]


def epoch_order(key: Key[Array, ""], epoch: ArrayLike, num_images: int, num_drawn: int) -> Int32[Array, " {num_drawn}"]:
    """Draw the images of one epoch.

    The images of a run are one stream of random permutations of the whole set. Each epoch takes the next ``num_drawn``:
    an epoch of whole batches leaves some images out, and the next one begins with them, so that all images are used
    equally often.

    Args:
        key: The key of the order.
        epoch: The epoch's number, from 0.
        num_images: The number of images in the set.
        num_drawn: The number of images in an epoch, at most ``num_images``.

    Returns:
        Indices in ``[0, num_images)``.
    """
    # The stream's position is epoch * num_drawn, kept as (pass, offset): the product would overflow int32.
    left_out = num_images - num_drawn
    behind = jnp.asarray(epoch, jnp.int32) * left_out
    passes = (behind + num_images - 1) // num_images
    offset = passes * num_images - behind
    first = jnp.asarray(epoch, jnp.int32) - passes
    keys = jax.vmap(lambda i: jax.random.fold_in(key, first + i))(jnp.arange(2, dtype=jnp.int32))
    permutations = jax.vmap(lambda key: jax.random.permutation(key, num_images))(keys)
    return jax.lax.dynamic_slice(permutations.reshape(-1), (offset,), (num_drawn,))


def train_epoch(
    program: Program, hyper: Hyperparameters, state: TrainState, train: Split, epoch: Int32[Array, ""]
) -> tuple[TrainState, TrainMetrics]:
    """Train one lane for one epoch; on a mesh, this device takes its part of every batch."""
    keys = Keys.of(hyper.seed)
    size, num_steps = program.config.batch_size, program.steps_per_epoch
    order = epoch_order(keys.order, epoch, program.num_train, num_steps * size).reshape(num_steps, size)
    if program.axis_name is not None:
        part = size // jax.lax.axis_size(program.axis_name)
        order = jax.lax.dynamic_slice_in_dim(order, jax.lax.axis_index(program.axis_name) * part, part, axis=1)

    # Between steps, parameters and statistics are one vector each: XLA:CPU would copy and slice 36 small arrays.
    unravel_params, unravel_stats = (ravel_pytree(x)[1] for x in (state.params, state.batch_stats))

    def pack(state: TrainState) -> TrainState:
        flat = (ravel_pytree(x)[0] for x in (state.params, state.batch_stats))
        return state._replace(params=next(flat), batch_stats=next(flat))

    def unpack(state: TrainState) -> TrainState:
        return state._replace(params=unravel_params(state.params), batch_stats=unravel_stats(state.batch_stats))

    def step(state: TrainState, indices: jax.Array) -> tuple[TrainState, jax.Array]:
        images, labels = (jnp.asarray(x).at[indices].get(mode="promise_in_bounds") for x in train)
        state, metrics = train_step(program, hyper, keys, unpack(state), images, labels)
        return pack(state), jnp.stack(metrics)

    state, metrics = jax.lax.scan(step, pack(state), order)
    return unpack(state), TrainMetrics(*metrics.sum(0))


def evaluate(program: Program, state: TrainState, split: Split) -> Metrics:
    """Evaluate one lane on every image of a split; on a mesh, this device takes every n-th batch."""
    num_images = split.labels.size
    num_parts = 1 if program.axis_name is None else jax.lax.axis_size(program.axis_name)
    part = 0 if program.axis_name is None else jax.lax.axis_index(program.axis_name)
    num_batches = -(-num_images // (EVAL_BATCH * num_parts))

    def evaluate_batch(number: jax.Array) -> Metrics:
        indices = (number * num_parts + part) * EVAL_BATCH + jnp.arange(EVAL_BATCH, dtype=jnp.int32)
        valid = indices < num_images
        indices = jnp.minimum(indices, num_images - 1)
        return eval_step(program, state, split.images[indices], split.labels[indices], valid)

    metrics = jax.tree.map(lambda x: x.sum(0), jax.lax.map(evaluate_batch, jnp.arange(num_batches, dtype=jnp.int32)))
    return metrics if program.axis_name is None else jax.lax.psum(metrics, program.axis_name)


class EpochMetrics(NamedTuple):
    """The sums of an epoch, each ``[lanes]``; ``validation`` is None without a holdout."""

    train: TrainMetrics
    test: Metrics
    validation: Metrics | None


def means(metrics: EpochMetrics) -> dict[str, Float64[np.ndarray, " lanes"]]:
    """Divide the sums of an epoch, as arrays on the host, by their counts.

    Returns:
        Means by name: ``train_loss``, ``train_accuracy``, ``train_gradient_norm``, ``train_update_norm``,
        ``test_loss``, ``test_accuracy``, and with a holdout ``validation_loss`` and ``validation_accuracy``.
    """
    values = {}
    for split, sums in metrics._asdict().items():
        totals = {} if sums is None else sums._asdict()
        count = totals.pop("count", None)
        for name, total in totals.items():
            values[f"{split}_{'accuracy' if name == 'correct' else name}"] = np.asarray(total, np.float64) / count
    return values
