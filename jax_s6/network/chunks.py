"""Sums over a batch in one fixed order, however the batch is divided over chunks and devices.

On CPU a training batch consists of a power of two of equal chunks, and each of its devices (a power of two as well, by
default) computes some of them. Every sum over the batch is a balanced binary tree whose leaves are the chunks. So its
result is the same, bit for bit, whichever device computes a chunk. Gradients are such sums, too.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax.flatten_util import ravel_pytree


def num_devices(axis_name: str | None) -> int:
    """Return the number of devices along a mesh axis, 1 without an axis."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def sum_over_devices(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Add the arrays of all devices along a mesh axis: as a tree if their number is a power of two."""
    if axis_name is None:
        return x
    size = num_devices(axis_name)
    if size <= 2 or size & (size - 1):  # the sum of two numbers has one order; other sizes make no balanced tree
        return jax.lax.psum(x, axis_name)
    return _tree_sum(list(jax.lax.all_gather(x, axis_name)))


def sum_over_chunks(parts: Sequence[jax.Array]) -> jax.Array:
    """Add the arrays of a device's chunks, isolated from the operations before and after the sum.

    XLA:CPU would fuse the sum with its neighbours, differently for each number of chunks, and LLVM would then round
    some products and sums in one step (FMA). It does not fuse what stands in a branch that it cannot foresee.
    """
    total: Any = _sum_over_chunks(list(parts)) if len(parts) > 1 else parts[0]
    return total


def mean_over_batch(parts: Sequence[jax.Array], axis_name: str | None) -> jax.Array:
    """Average the arrays of all chunks on all devices.

    The gradient is right if all devices compute the same from the mean; see ``copies`` for the devices' shares of it.
    """
    whole = len(parts) == num_devices(axis_name) == 1
    mean: Any = sum_over_devices(parts[0], axis_name) if whole else _mean_over_batch(list(parts), axis_name)
    return mean


def copies(tree: Any, count: int, axis_name: str | None = None) -> list[Any]:
    """Return ``tree`` once for each of a device's chunks; the gradients of the copies are added in the fixed order.

    Args:
        tree: Arrays that are the same on all devices. Their gradients are added as one vector.
        count: The number of chunks.
        axis_name: The axis over whose devices the gradient is added as well. Each device gets an equal share of it.
            None: each device gets the gradient of its own chunks.
    """
    if count == num_devices(axis_name) == 1:
        return [tree]
    flat, unravel = ravel_pytree(tree)
    made: Any = _copies(flat, count, axis_name)
    return [unravel(x) for x in made]


def _tree_sum(parts: Sequence[jax.Array]) -> jax.Array:
    """Add a power of two of arrays as a balanced binary tree."""
    while len(parts) > 1:
        parts = [left + right for left, right in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@jax.custom_vjp
def _sum_over_chunks(parts: list[jax.Array]) -> jax.Array:
    first = parts[0].reshape(-1)[0]  # both branches give the same, but XLA does not know
    return jax.lax.cond(first == first, _tree_sum, lambda parts: _tree_sum(parts[::-1]), parts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _mean_over_batch(parts: list[jax.Array], axis_name: str | None) -> jax.Array:
    total = sum_over_devices(sum_over_chunks(parts), axis_name)
    return total / (len(parts) * num_devices(axis_name))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _copies(x: jax.Array, count: int, axis_name: str | None) -> list[jax.Array]:
    return [x] * count


def _add_gradients(count: int, axis_name: str | None, _: None, gradients: list[jax.Array]) -> tuple[jax.Array]:
    return (sum_over_devices(sum_over_chunks(gradients) / num_devices(axis_name), axis_name),)


_sum_over_chunks.defvjp(
    lambda parts: (_sum_over_chunks(parts), len(parts)),
    lambda count, gradient: ([gradient] * count,),
)
# The devices' shares of a mean's gradient are equal, so each one stands for all.
_mean_over_batch.defvjp(
    lambda parts, axis_name: (_mean_over_batch(parts, axis_name), len(parts)),
    lambda axis_name, count, gradient: ([gradient / count] * count,),
)
_copies.defvjp(lambda x, count, axis_name: (_copies(x, count, axis_name), None), _add_gradients)
