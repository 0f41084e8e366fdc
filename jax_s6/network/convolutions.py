"""The convolutions and the pooling, on ``[channels, height, width, batch]`` (CHWN) arrays.

With the batch last, every shift, stride, pad and interleave moves whole rows of ``batch`` contiguous numbers. XLA:CPU's
own convolution gradients fall into a naive loop inside ``lax.scan`` (20 times slower there), so a convolution is one
matrix product between two kinds of shifts: shifted copies of the input, along its width, are stacked before the product
(an im2col of one dimension), and its results are shifted along the height and added up after it. Backwards that is the
same once more: the gradient is shifted along the height and stacked, multiplied, shifted along the width and added up.
A 3x3 window so costs three copies, not nine, and every product is free of zeros. ``conv3x3_im2col`` stacks nine, for
small images on a GPU, where it is not the copies that cost but the number of operations.

A convolution of stride 2 takes its input in *phases*: ``[4, channels, height / 2, width / 2, batch]``, where phase
``2 p + q`` holds the pixels ``(2 m + p, 2 n + q)``. Its taps are then shifts by at most one position, too.
Nothing here knows about layers or parameters.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

_PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))
_HEIGHT, _WIDTH = 1, 2  # dimensions of CHWN


# --- products ----------------------------------------------------------------------------------------------------


def _matmul(a: jax.Array, b: jax.Array, contract: tuple[int, int] = (1, 0)) -> jax.Array:
    """Multiplies two matrices over the given dimensions, summing in float32 (float64 if they are)."""
    dtype = a.dtype if a.dtype == jnp.float64 else jnp.float32
    return lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=dtype)


def _transposed(matrix: jax.Array) -> jax.Array:
    """Transposes a small matrix; on CPU by a constant gather, as XLA:CPU widens bfloat16 products with transposes."""
    rows, columns = matrix.shape
    order = np.arange(rows * columns).reshape(rows, columns).T

    def gather(matrix: jax.Array) -> jax.Array:
        return matrix.reshape(-1)[order.reshape(-1)].reshape(columns, rows)

    return lax.platform_dependent(matrix, cpu=gather, default=jnp.transpose)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _weighted(weights: jax.Array, x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """``weights.T @ x`` for small weights ``[in, out]`` and a long x ``[in, n]``; operands are rounded to ``dtype``."""
    return _weighted_forward(weights, x, dtype)[0]


def _weighted_forward(weights, x, dtype):
    x = x.astype(dtype)
    return _matmul(_transposed(weights).astype(dtype), x), (weights, x)


def _weighted_backward(dtype, residuals, dy):
    weights, x = residuals
    dy = dy.astype(dtype)
    # The second operand is repacked: let it be the one with fewer rows.
    dweights = _matmul(x, dy, (1, 1)) if len(x) >= len(dy) else _transposed(_matmul(dy, x, (1, 1)))
    return dweights, _matmul(weights.astype(dtype), dy)


_weighted.defvjp(_weighted_forward, _weighted_backward)


def _mix(x: jax.Array, weights: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Mixes channels: ``[C, H, W, B]`` with weights ``[C, O]`` to ``[O, H, W, B]``."""
    mixed = jnp.asarray(_weighted(weights, x.reshape(len(x), -1), dtype))
    return mixed.reshape(-1, *x.shape[1:])


def _shift(x: jax.Array, axis: int, by: int) -> jax.Array:
    """Moves the content along an axis by some positions, zeros following."""
    edges = [(by, -by, 0) if axis == dimension else (0, 0, 0) for dimension in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


# --- convolutions ------------------------------------------------------------------------------------------------


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
    if stride == 2:
        return conv3x3_from_phases(to_phases(x), kernel, dtype)
    channels, out_channels = kernel.shape[2:]
    columns = jnp.concatenate([_shift(x, _WIDTH, 1), x, _shift(x, _WIDTH, -1)])
    weights = kernel.reshape(3, 3 * channels, out_channels).transpose(1, 0, 2).reshape(3 * channels, -1)
    above, centre, below = lax.split(_mix(columns, weights, dtype), (out_channels,) * 3)
    return _shift(above, _HEIGHT, 1) + centre + _shift(below, _HEIGHT, -1)


def conv3x3_im2col(x: jax.Array, kernel: jax.Array, stride: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Does what ``conv3x3`` does in fewer operations, with more memory: one product with nine copies of the input."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    copies = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    return _mix(jnp.concatenate(copies), kernel.reshape(-1, kernel.shape[-1]), dtype)


def to_phases(x: jax.Array) -> jax.Array:
    """Sorts pixels by whether their row and column are even: ``[C, H, W, B]`` to phases, odd sizes zero-padded."""
    channels, height, width, batch = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    x = x.reshape(channels, (height + 1) // 2, 2, (width + 1) // 2, 2, batch).transpose(2, 4, 0, 1, 3, 5)
    # XLA:CPU would fuse the reverse of this into what reads it, pixel by pixel.
    return lax.optimization_barrier(x.reshape(4, *x.shape[2:]))


def conv3x3_from_phases(phases: jax.Array, kernel: jax.Array, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Convolves with a 3x3 kernel, stride 2 and padding 1, an input that is given in phases.

    Args:
        phases: float32 ``[4, C, H / 2, W / 2, B]``.
        kernel: float32 ``[3, 3, C, O]``.
        dtype: float32 or bfloat16, of the products' operands.

    Returns:
        float32 ``[O, H / 2, W / 2, B]``.
    """
    channels, out_channels = kernel.shape[2:]
    taps = kernel.reshape(3, 3 * channels, out_channels)
    even_even, even_odd, odd_even, odd_odd = (phase[0] for phase in lax.split(phases, (1,) * 4))

    def columns(even: jax.Array, odd: jax.Array) -> jax.Array:
        """Pixels 2n - 1, 2n and 2n + 1 of a row, for tap columns 0, 1 and 2."""
        return jnp.concatenate([_shift(odd, _WIDTH, 1), even, odd])

    # Tap rows 0, 1 and 2 read pixel rows 2m - 1, 2m and 2m + 1.
    centre = _mix(columns(even_even, even_odd), taps[1], dtype)
    odd = _mix(columns(odd_even, odd_odd), jnp.concatenate([taps[0], taps[2]], 1), dtype)
    above, below = lax.split(odd, (out_channels,) * 2)
    return _shift(above, _HEIGHT, 1) + centre + below


def conv3x3_to_phases(image: jax.Array, kernel: jax.Array, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Convolves one-channel images with a 3x3 kernel, stride 1 and padding 1, giving phases.

    Args:
        image: float32 ``[1, H, W, B]``, H and W even.
        kernel: float32 ``[3, 3, 1, O]``.
        dtype: float32 or bfloat16, of the products' operands.

    Returns:
        float32 ``[4, O, H / 2, W / 2, B]``.
    """
    _, height, width, batch = image.shape
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # The four phases of a 2x2 block of outputs see a 4x4 window of the image, of which each uses 3x3.
    columns = jnp.concatenate([padded[:, :, v : v + width : 2] for v in range(4)])
    windows = jnp.concatenate([columns[:, u : u + height : 2] for u in range(4)])
    taps = [jnp.pad(kernel[:, :, 0], ((p, 1 - p), (q, 1 - q), (0, 0))).reshape(16, -1) for p, q in _PAIRS]
    return _mix(windows, jnp.concatenate(taps, 1), dtype).reshape(4, -1, height // 2, width // 2, batch)


def conv3x3_xla(x: jax.Array, kernel: jax.Array, stride: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Does what ``conv3x3`` does through the platform's own convolution, for GPU and TPU."""
    layout = ("CHWN", "HWIO", "CHWN")
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    y = lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout)
    return y.astype(jnp.float32)


def constant_response(kernel: jax.Array, value: jax.Array, sizes: tuple[int, int], stride: int) -> jax.Array:
    """Convolves images that are constant but for their zero padding: what an affine map before a convolution adds.

    Args:
        kernel: float32 ``[3, 3, C, O]``.
        value: float32 ``[C]``, of every pixel of a channel.
        sizes: H and W.
        stride: 1 or 2.

    Returns:
        float32 ``[O, H', W', 1]``.
    """
    rows, columns = (_meets_pixel(size, stride) for size in sizes)
    taps = jnp.einsum("ijco,c->ijo", kernel, value)
    return jnp.einsum("mi,nj,ijo->omn", rows, columns, taps)[..., None]


def _meets_pixel(size: int, stride: int) -> np.ndarray:
    """Tells whether an output meets a pixel, not the padding, through a tap: float32 ``[outputs, 3]`` of 0 and 1."""
    pixels = np.arange(0, size, stride)[:, None] + np.arange(-1, 2)
    return ((0 <= pixels) & (pixels < size)).astype(np.float32)


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
