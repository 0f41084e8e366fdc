"""One epoch of one lane, as a scan over data that live on the device; nothing returns to the host within it."""

from typing import Any, NamedTuple

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jax_s6.config import Hyperparameters
from jax_s6.training import step as steps
from jax_s6.training.state import Keys, Program, TrainState
from jax_s6.training.step import Metrics, TrainMetrics

EVAL_BATCH = 125


class Split(NamedTuple):
    """Images that are trained on or judged: uint8 ``[n, 28, 28, 1]``, int32 ``[n]``."""

    images: Any
    labels: Any


def epoch_order(key: chex.PRNGKey, epoch: jax.typing.ArrayLike, num_images: int, num_drawn: int) -> jax.Array:
    """Draws the images of one epoch.

    The run's images are one stream of random permutations of the whole set, of which each epoch takes the next
    ``num_drawn``: what an epoch of whole batches leaves out begins the next one, so all images are seen equally often.

    Args:
        key: Of the order.
        epoch: int32, from 0.
        num_images: Images in the set.
        num_drawn: Images in an epoch, at most ``num_images``.

    Returns:
        int32 ``[num_drawn]`` indices.
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
    program: Program, hyper: Hyperparameters, state: TrainState, train: Split, epoch: jax.Array
) -> tuple[TrainState, TrainMetrics]:
    """Trains one lane for one epoch; on a mesh, this device does its part of every batch."""
    keys = Keys.of(hyper.seed)
    size, num_steps = program.config.batch_size, program.steps_per_epoch
    order = epoch_order(keys.order, epoch, program.num_train, num_steps * size).reshape(num_steps, size)
    if program.axis_name is not None:
        part = size // jax.lax.axis_size(program.axis_name)
        order = jax.lax.dynamic_slice_in_dim(order, jax.lax.axis_index(program.axis_name) * part, part, axis=1)

    # Between steps, parameters and statistics are one vector each: XLA:CPU would copy and slice 36 small arrays.
    unravel_params, unravel_stats = (jax.flatten_util.ravel_pytree(x)[1] for x in (state.params, state.batch_stats))

    def pack(state: TrainState) -> TrainState:
        flat = (jax.flatten_util.ravel_pytree(x)[0] for x in (state.params, state.batch_stats))
        return state._replace(params=next(flat), batch_stats=next(flat))

    def unpack(state: TrainState) -> TrainState:
        return state._replace(params=unravel_params(state.params), batch_stats=unravel_stats(state.batch_stats))

    def step(state: TrainState, indices: jax.Array) -> tuple[TrainState, jax.Array]:
        images = train.images.at[indices].get(mode="promise_in_bounds")
        labels = train.labels.at[indices].get(mode="promise_in_bounds")
        state, metrics = steps.train_step(program, hyper, keys, unpack(state), images, labels)
        return pack(state), jnp.stack(metrics)

    state, metrics = jax.lax.scan(step, pack(state), order)
    return unpack(state), TrainMetrics(*metrics.sum(0))


def evaluate(program: Program, state: TrainState, split: Split) -> Metrics:
    """Judges every image of a split with one lane; on a mesh, this device takes every n-th batch."""
    num_images = split.labels.size
    num_parts = 1 if program.axis_name is None else jax.lax.axis_size(program.axis_name)
    part = 0 if program.axis_name is None else jax.lax.axis_index(program.axis_name)
    num_batches = -(-num_images // (EVAL_BATCH * num_parts))

    def judge(number: jax.Array) -> Metrics:
        indices = (number * num_parts + part) * EVAL_BATCH + jnp.arange(EVAL_BATCH, dtype=jnp.int32)
        valid = indices < num_images
        indices = jnp.minimum(indices, num_images - 1)
        return steps.eval_step(program, state, split.images[indices], split.labels[indices], valid)

    metrics = jax.tree.map(lambda x: x.sum(0), jax.lax.map(judge, jnp.arange(num_batches, dtype=jnp.int32)))
    return metrics if program.axis_name is None else jax.lax.psum(metrics, program.axis_name)


class EpochMetrics(NamedTuple):
    """An epoch's sums, ``[lanes]`` each; ``validation`` is None without a holdout."""

    train: TrainMetrics
    test: Metrics
    validation: Metrics | None


def means(metrics: EpochMetrics) -> dict[str, np.ndarray]:
    """Divides an epoch's sums, fetched to the host, by their counts.

    Returns:
        float64 ``[lanes]`` by name: ``train_loss``, ``train_accuracy``, ``train_gradient_norm``, ``train_update_norm``,
        ``test_loss``, ``test_accuracy``, and the last two for ``validation`` where there is one.
    """
    values = {}
    for split, sums in metrics._asdict().items():
        totals = {} if sums is None else sums._asdict()
        count = totals.pop("count", None)
        for name, total in totals.items():
            values[f"{split}_{'accuracy' if name == 'correct' else name}"] = np.asarray(total, np.float64) / count
    return values
