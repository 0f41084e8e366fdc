"""Operations on activations of networks side by side, with gradients that suit accelerators.

TPU and GPU differ in what they fuse, so some operations have two equal programs.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jax_s6.network.packed.layout import LIMIT, Convolved, Kernels, Packed, Packing, Pooled, clip


def convolve(x: Packed, kernels: Kernels, stride: int, packing: Packing) -> Convolved:
    """Convolve with padding 1."""
    even = x.shape[1] % 2 == x.shape[2] % 2 == 0
    function = _convolve_even if stride == 2 and even else functools.partial(_convolve, stride)
    return function(packing.groups, x, packing.block_diagonal(kernels))


def _convolve(stride: int, groups: int, x: Packed, kernel: jax.Array) -> jax.Array:
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
    return lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve_even(groups: int, x: Packed, kernel: jax.Array) -> jax.Array:
    """Convolve images of even sizes with stride 2. The gradient multiplies no zeros between the pixels of ``dy``."""
    return _convolve(2, groups, x, kernel)


def _convolve_even_backward(groups: int, residuals: Any, dy: Convolved) -> tuple[Packed, jax.Array]:
    x, kernel = residuals
    dkernel = jax.linear_transpose(lambda kernel: _convolve(2, groups, x, kernel), kernel)(dy)[0]

    def plain(kernel: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: _convolve(2, groups, x, kernel), x)(dy)[0]

    by_phase = functools.partial(_gradient_by_phase, groups)
    return lax.platform_dependent(kernel, dy, cuda=by_phase, rocm=by_phase, default=plain), dkernel


def _gradient_by_phase(groups: int, kernel: jax.Array, dy: jax.Array) -> jax.Array:
    """Compute the gradient of the input, in which each phase is a convolution of ``dy`` with some of the taps."""
    batch, height, width, _ = dy.shape
    *_, inputs, outputs = kernel.shape
    taps = kernel.reshape(3, 3, inputs, groups, outputs // groups).transpose(0, 1, 4, 3, 2)
    taps = jnp.pad(taps, ((0, 1), (0, 1), (0, 0), (0, 0), (0, 0)))  # tap 3 is 0
    # Pixel 2m of the input met tap 1 of the output m; pixel 2m + 1 met tap 2 of m, and tap 0 of m + 1.
    used = np.array([[1, 2], [3, 0]])  # [offset, phase]
    phases = taps[used[:, None, :, None], used[None, :, None, :]]  # [row offset, column offset, row, column, ...]
    phases = phases.transpose(0, 1, 4, 5, 2, 3, 6).reshape(2, 2, outputs // groups, -1)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
    dx = lax.conv_general_dilated(dy, phases, (1, 1), ((0, 1), (0, 1)), **options)
    dx = dx.reshape(batch, height, width, groups, 2, 2, inputs).transpose(0, 1, 4, 2, 5, 3, 6)
    return dx.reshape(batch, 2 * height, 2 * width, groups * inputs)


_convolve_even.defvjp(lambda groups, x, kernel: (_convolve(2, groups, x, kernel), (x, kernel)), _convolve_even_backward)


@jax.custom_vjp
def bias_relu(
    y: Packed, bias: Float[Array, "1 #height #width channels"], sign: Float[Array, "1 1 1 channels"]
) -> tuple[Packed, Float[Array, "2 channels"]]:
    """Add a bias per channel, or per position and channel, and apply ReLU and a sign.

    The result's means and mean squares come with it: then the gradient needs the result alone, in one pass over it.
    """
    z = (jnp.clip(y.astype(jnp.float32) + bias, 0.0, LIMIT) * sign).astype(y.dtype)
    wide = z.astype(jnp.float32)
    return z, jnp.stack([wide.mean((0, 1, 2)), (wide * wide).mean((0, 1, 2))])


def _bias_relu_forward(y: Packed, bias: jax.Array, sign: jax.Array) -> tuple[Any, Any]:
    z, moments = bias_relu(y, bias, sign)
    return (z, moments), (z, bias, sign)


def _bias_relu_backward(residuals: Any, gradients: Any) -> tuple[Packed, jax.Array, jax.Array]:
    (z, bias, sign), (dz, dmoments) = residuals, gradients
    dmean, dsquare = jnp.asarray(clip(dmoments, LIMIT**2))[:, None, None, None] / math.prod(z.shape[:3])
    dz = dz.astype(jnp.float32) + (dmean + 2 * dsquare * z.astype(jnp.float32))
    dy = (jnp.clip(dz, -LIMIT, LIMIT) * jnp.sign(z.astype(jnp.float32))).astype(z.dtype)  # a TPU would pack masks
    axes = tuple(axis for axis in range(3) if bias.shape[axis] == 1)
    return dy, dy.astype(jnp.float32).sum(axes, keepdims=True), jnp.zeros_like(sign)


bias_relu.defvjp(_bias_relu_forward, _bias_relu_backward)


def max_pool(x: Packed) -> Pooled:
    """Take the largest pixel of each 2x2 window; the gradient goes to the first of equal ones."""

    def by_window(x: Packed) -> Pooled:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    return lax.platform_dependent(x, cuda=_max_pool_by_slices, rocm=_max_pool_by_slices, default=by_window)


def _windows(x: Packed) -> list[Any]:
    """Return the four pixels of each whole 2x2 window, row by row."""
    rows, columns = (size // 2 * 2 for size in x.shape[1:3])
    return [x[:, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]


@jax.custom_vjp
def _max_pool_by_slices(x: Packed) -> jax.Array:
    """Pool as ``max_pool`` does, in operations that a GPU fuses with their neighbours."""
    return functools.reduce(jnp.maximum, _windows(x))


def _max_pool_backward(x: Packed, dy: jax.Array) -> tuple[jax.Array]:
    a, b, c, d = _windows(x)
    first_row, second_row = jnp.maximum(a, b), jnp.maximum(c, d)
    in_first, none = first_row >= second_row, jnp.zeros((), dy.dtype)
    up, down = jnp.where(in_first, dy, none), jnp.where(in_first, none, dy)
    rows = [(jnp.where(a >= b, up, none), jnp.where(a >= b, none, up))]
    rows += [(jnp.where(c >= d, down, none), jnp.where(c >= d, none, down))]
    batch, height, width, channels = dy.shape
    dx = jnp.stack([jnp.stack(row, 3) for row in rows], 2).reshape(batch, 2 * height, 2 * width, channels)
    _, rows_of_x, columns_of_x, _ = x.shape
    return (jnp.pad(dx, ((0, 0), (0, rows_of_x % 2), (0, columns_of_x % 2), (0, 0))),)


_max_pool_by_slices.defvjp(lambda x: (_max_pool_by_slices(x), x), _max_pool_backward)
