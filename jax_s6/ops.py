"""The convolutions and the pooling, on ``[channels, height, width, batch]`` (CHWN) arrays, with their gradients.

With the batch last, every shift, stride, pad and interleave moves whole rows of ``batch`` contiguous numbers; a
convolution is then one im2col and one matrix product, forward and backward. XLA:CPU's own convolution gradients fall
into a naive loop inside ``lax.scan`` (20 times slower there). Nothing here knows about layers or parameters.

A 3x3 convolution followed by one of stride 2 passes its activations in *phases*: ``[4, channels, height / 2,
width / 2, batch]``, where phase ``2 p + q`` holds the pixels ``(2 m + p, 2 n + q)``. Every tap of the second
convolution is then a plain slice, its input gradient needs no interleaving, and the kernel gradient of the first
one is a well-shaped product.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

_PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))
# Along one axis of a stride-2 convolution with padding 1, output m meets: tap -> (phase, start in the phase padded by
# one row before). Tap 0 reads pixel 2m - 1, tap 1 pixel 2m, tap 2 pixel 2m + 1.
_TAP_PHASE = ((1, 0), (0, 1), (1, 1))
# The same read backwards: pixel 2m + phase meets output m + neighbour through: (neighbour, phase) -> tap.
_NEIGHBOUR_TAP = {(0, 0): 1, (0, 1): 2, (1, 1): 0}


def _matmul(a: jax.Array, b: jax.Array, contract: tuple[int, int] = (1, 0)) -> jax.Array:
    """Multiplies two matrices over the given dimensions, summing in float32 (float64 if they are)."""
    dtype = a.dtype if a.dtype == jnp.float64 else jnp.float32
    return lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=dtype)


def _transposed(matrix: jax.Array) -> jax.Array:
    """Transposes a small matrix by a constant gather: XLA:CPU widens a bfloat16 product that has a transpose in it."""
    rows, columns = matrix.shape
    order = np.arange(rows * columns).reshape(rows, columns).T
    return matrix.reshape(-1)[order.reshape(-1)].reshape(columns, rows)


def _as_bits(x: jax.Array) -> jax.Array:
    """Views bfloat16 as uint16: XLA:CPU pads, slices and concatenates bfloat16 by way of float32."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def _as_values(x: jax.Array) -> jax.Array:
    """Undoes ``_as_bits``."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def _pad(x: jax.Array, before: int, after: int) -> jax.Array:
    """Pads height and width, the third and second dimension from the end, with zeros."""
    widths = [(0, 0)] * (x.ndim - 3) + [(before, after)] * 2 + [(0, 0)]
    return jnp.pad(x, widths)


def _stack_taps(taps: list[jax.Array]) -> jax.Array:
    """Joins ``[C, H, W, B]`` taps into the im2col matrix ``[taps * C, H * W * B]``."""
    return _as_values(jnp.concatenate(taps).reshape(len(taps) * taps[0].shape[0], -1))


# --- one convolution ---------------------------------------------------------------------------------------------


def _im2col(x: jax.Array, stride: int) -> jax.Array:
    """``[C, H, W, B]`` to ``[9 * C, H' * W' * B]``, taps major, for a 3x3 window with padding 1."""
    _, height, width, _ = x.shape
    x = _pad(_as_bits(x), 1, 1)
    return _stack_taps([x[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv3x3(x: jax.Array, kernel: jax.Array, stride: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Convolves with a 3x3 kernel and padding 1, as ``torch.nn.functional.conv2d(x, kernel, None, stride, 1)``.

    Args:
        x: float32 ``[C, H, W, B]``.
        kernel: float32 ``[3, 3, C, O]``.
        stride: 1 or 2.
        dtype: float32 or bfloat16, of the matrix products' operands, forward and backward; sums are float32.

    Returns:
        float32 ``[O, H', W', B]`` with ``H' = (H - 1) // stride + 1``.
    """
    return _conv3x3_forward(x, kernel, stride, dtype)[0]


def _conv3x3_forward(x, kernel, stride, dtype):
    _, height, width, batch = x.shape
    columns = _im2col(x.astype(dtype), stride)
    weights = _transposed(kernel.reshape(columns.shape[0], -1)).astype(dtype)
    y = _matmul(weights, columns).reshape(-1, (height - 1) // stride + 1, (width - 1) // stride + 1, batch)
    return y, (columns, kernel, x.shape)


def _conv3x3_backward(stride, dtype, residuals, dy):
    columns, kernel, (_, height, width, _) = residuals
    out_channels = dy.shape[0]
    dy = dy.astype(dtype)
    dkernel = _matmul(columns, dy.reshape(out_channels, -1), (1, 1)).reshape(kernel.shape)
    if stride == 1:  # a convolution with the flipped, transposed kernel
        flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
        return _conv3x3_forward(dy, flipped, 1, dtype)[0], dkernel
    _, channels, half_height, half_width, batch = (phases := _phase_gradient(dy, kernel, dtype)).shape
    phases = phases.reshape(2, 2, channels, half_height, half_width, batch)
    dx = phases.transpose(2, 3, 0, 4, 1, 5).reshape(channels, 2 * half_height, 2 * half_width, batch)
    return dx[:, :height, :width], dkernel


conv3x3.defvjp(_conv3x3_forward, _conv3x3_backward)


def _phase_gradient(dy: jax.Array, kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The input gradient of a stride-2 convolution, in phases: one product over 2x2 neighbourhoods of ``dy``.

    The four phases have 1, 2, 2 and 4 of the 9 taps; the rest of the weights are zero.
    """
    out_channels, height, width, batch = dy.shape
    zero = jnp.zeros(kernel.shape[3:1:-1], kernel.dtype)

    def block(neighbour: tuple[int, int], phase: tuple[int, int]) -> jax.Array:
        row, column = ((neighbour[axis], phase[axis]) for axis in (0, 1))
        if row not in _NEIGHBOUR_TAP or column not in _NEIGHBOUR_TAP:
            return zero
        return kernel[_NEIGHBOUR_TAP[row], _NEIGHBOUR_TAP[column]].T

    weights = jnp.stack([jnp.stack([block(neighbour, phase) for phase in _PAIRS], 1) for neighbour in _PAIRS])
    weights = _transposed(weights.reshape(4 * out_channels, -1)).astype(dtype)
    padded = _pad(_as_bits(dy), 0, 1)
    columns = _stack_taps([padded[:, a : a + height, e : e + width] for a, e in _PAIRS])
    return _matmul(weights, columns).reshape(4, -1, height, width, batch)


# --- a pair of convolutions, the second of stride 2, with phases between them -------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3_to_phases(image: jax.Array, kernel: jax.Array, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Convolves one-channel images with a 3x3 kernel, stride 1 and padding 1, giving phases.

    Args:
        image: float32 ``[1, H, W, B]``, H and W even. Its own gradient is not computed: it is zero.
        kernel: float32 ``[3, 3, 1, O]``.
        dtype: float32 or bfloat16, of the products' operands.

    Returns:
        float32 ``[4, O, H / 2, W / 2, B]``.
    """
    return _to_phases_forward(image, kernel, dtype)[0]


def _to_phases_forward(image, kernel, dtype):
    _, height, width, batch = image.shape
    padded = _pad(_as_bits(image.astype(dtype)), 1, 1)
    # The four phases of a 2x2 block of outputs see a 4x4 window of the image, of which each uses 3x3.
    columns = _stack_taps([padded[:, u : u + height : 2, v : v + width : 2] for u in range(4) for v in range(4)])
    taps = kernel[:, :, 0].transpose(2, 0, 1)
    windows = [jnp.pad(taps, ((0, 0), (p, 1 - p), (q, 1 - q))).reshape(-1, 16) for p, q in _PAIRS]
    y = _matmul(jnp.concatenate(windows).astype(dtype), columns)
    return y.reshape(4, -1, height // 2, width // 2, batch), (columns, image)


def _to_phases_backward(dtype, residuals, dy):
    columns, image = residuals
    phases, channels = dy.shape[:2]
    windows = _matmul(dy.astype(dtype).reshape(phases * channels, -1), columns, (1, 1)).reshape(4, channels, 4, 4)
    taps = jnp.stack([windows[2 * p + q, :, p : p + 3, q : q + 3] for p, q in _PAIRS]).sum(0)
    return jnp.zeros_like(image), taps.transpose(1, 2, 0)[:, :, None]


conv3x3_to_phases.defvjp(_to_phases_forward, _to_phases_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3_from_phases(phases: jax.Array, kernel: jax.Array, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Convolves with a 3x3 kernel, stride 2 and padding 1, an input that is given in phases.

    Args:
        phases: float32 ``[4, C, H / 2, W / 2, B]``.
        kernel: float32 ``[3, 3, C, O]``.
        dtype: float32 or bfloat16, of the products' operands.

    Returns:
        float32 ``[O, H / 2, W / 2, B]``.
    """
    return _from_phases_forward(phases, kernel, dtype)[0]


def _from_phases_forward(phases, kernel, dtype):
    _, _, height, width, batch = phases.shape
    padded = _pad(_as_bits(phases.astype(dtype)), 1, 0)
    taps = [(i, j) for i in _TAP_PHASE for j in _TAP_PHASE]
    columns = _stack_taps([padded[2 * p + q, :, m : m + height, n : n + width] for (p, m), (q, n) in taps])
    weights = _transposed(kernel.reshape(columns.shape[0], -1)).astype(dtype)
    return _matmul(weights, columns).reshape(-1, height, width, batch), (columns, kernel)


def _from_phases_backward(dtype, residuals, dy):
    columns, kernel = residuals
    dy = dy.astype(dtype)
    dkernel = _matmul(columns, dy.reshape(dy.shape[0], -1), (1, 1)).reshape(kernel.shape)
    return _phase_gradient(dy, kernel, dtype), dkernel


conv3x3_from_phases.defvjp(_from_phases_forward, _from_phases_backward)


# --- pooling -----------------------------------------------------------------------------------------------------


def _windows(x: jax.Array) -> list[jax.Array]:
    """The four pixels of every whole 2x2 window, row by row: each ``[C, H // 2, W // 2, B]``."""
    _, height, width, _ = x.shape
    return [x[:, i : height // 2 * 2 : 2, j : width // 2 * 2 : 2] for i, j in _PAIRS]


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Takes the largest of each 2x2 window, ``[C, H, W, B]`` to ``[C, H // 2, W // 2, B]``.

    The gradient goes to the *first* largest pixel, as in PyTorch. Ties are the rule here, not the exception: wherever
    ReLU gave zeros, batch normalisation made them equal.
    """
    return functools.reduce(jnp.maximum, _windows(x))


def _max_pool_forward(x):
    y = max_pool(x)
    a, b, c, _ = _windows(x)
    first = jnp.where(a == y, 0, jnp.where(b == y, 1, jnp.where(c == y, 2, 3))).astype(jnp.uint8)
    return y, (first, x.shape)


def _max_pool_backward(residuals, dy):
    first, (channels, height, width, batch) = residuals
    parts = jnp.stack([jnp.where(first == k, dy, 0.0) for k in range(4)])
    parts = parts.reshape(2, 2, channels, height // 2, width // 2, batch)
    dx = parts.transpose(2, 3, 0, 4, 1, 5).reshape(channels, height // 2 * 2, width // 2 * 2, batch)
    return (jnp.pad(dx, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def conv3x3_xla(x: jax.Array, kernel: jax.Array, stride: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Does what ``conv3x3`` does through the platform's own convolution, for GPU and TPU."""
    layout = ("CHWN", "HWIO", "CHWN")
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    y = lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout)
    return y.astype(jnp.float32)
