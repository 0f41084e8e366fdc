"""The layout of networks side by side, and what may enter a product that they share."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

MOST = 8
"""Largest number of networks side by side: 128 channels."""
LIMIT = 1e15
Packed = Float[Array, "batch height width channels"]
Convolved = Float[Array, "batch rows columns outputs"]
Pooled = Float[Array, "batch rows columns channels"]
PerChannel = Float[Array, "1 1 1 packed"]
Lanes = Float[Array, "lanes channels"]
Signs = Float[Array, "lanes to"]
Kernels = Float[Array, "lanes 3 3 from to"]


class Packing(NamedTuple):
    """How networks stand side by side.

    Attributes:
        lanes: Number of lanes.
        dtype: The type of activations and of the factors of products: float32 or bfloat16.
        axis_name: The mesh axis that splits the batch, or None.
        groups: Number of equal groups of networks, of which each is one dense convolution.
    """

    lanes: int
    dtype: DTypeLike
    axis_name: str | None
    groups: int = 1

    def channels(self, x: Float[Array, "lanes *rest channels"]) -> Float[Array, "*rest packed"]:
        """Put the channels of all lanes side by side."""
        return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)

    def per_channel(self, x: Lanes) -> PerChannel:
        """Put the channels of all lanes side by side, as an array to be added to activations."""
        return self.channels(x)[None, None, None]

    def block_diagonal(self, kernels: Kernels) -> Float[Array, "3 3 wide_in wide_out"]:
        """Make one kernel, in the type of the factors, of those of all lanes, zero between lanes.

        Its inputs are those of a group of networks, as those of a convolution with ``feature_group_count`` are.
        """
        *_, inputs, outputs = kernels.shape
        side = len(kernels) // self.groups
        rows = kernels.reshape(self.groups, side, 3, 3, inputs, outputs).transpose(2, 3, 1, 4, 0, 5)
        if side == 1:
            return rows.reshape(3, 3, inputs, -1).astype(self.dtype)
        # A product with ones and zeros copies columns, exactly; a TPU is slow to reshape the last dimension.
        copies = np.tile(np.eye(outputs, dtype=np.float32), side)
        wide = exact_product(rows.reshape(-1, outputs), copies)
        mask = np.kron(
            np.tile(np.eye(side, dtype=np.float32), self.groups), np.ones((1, 1, inputs, outputs), np.float32)
        )
        return (wide.reshape(3, 3, side * inputs, -1) * mask).astype(self.dtype)


def exact_product(
    a: Float[Array | np.ndarray, "rows inner"], b: Float[Array | np.ndarray, "inner columns"]
) -> Float[Array, "rows columns"]:
    """Multiply small float32 matrices: on TPU by its matrix unit, elsewhere by sums that are fused with others."""

    def matrix_unit(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    def sums(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a[:, :, None] * b[None]).sum(1)

    return lax.platform_dependent(jnp.asarray(a), jnp.asarray(b), tpu=matrix_unit, default=sums)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def clip(x: jax.Array, limit: float = LIMIT) -> jax.Array:
    """Bring numbers, and their gradients, into the range of ``limit``; what is not a number becomes the limit."""
    return jnp.where(jnp.isnan(x), limit, jnp.clip(x, -limit, limit))


clip.defvjp(lambda x, limit: (clip(x, limit), None), lambda limit, _, gradient: (clip(gradient, limit),))
