"""Convolutions and max-pooling on arrays ``[channels, height, width, batch]`` (CHWN). Layers are in ``layers``.

With the batch last, every shift, stride, pad and interleave moves whole rows of ``batch`` contiguous numbers. Inside
``lax.scan``, XLA:CPU computes the gradients of its own convolution by a naive loop, 20 times slower. So a convolution
here is one matrix product between two kinds of shifts: copies of the input, shifted along its width, are stacked before
the product (an im2col in one dimension), and its results are shifted along the height and added. The gradient is
computed in the same way. A 3x3 window costs three copies instead of nine, and no product multiplies padding.

A convolution of stride 2 reads its input in *phases*: ``[4, channels, height / 2, width / 2, batch]``, where phase
``2 p + q`` holds the pixels ``(2 m + p, 2 n + q)``. Its taps are then shifts by at most one position, too.

All arrays are float32, or float64 where a test asks for it. The argument ``dtype``, float32 or bfloat16, is the type to
which the factors of the products are rounded, forwards and backwards; sums are float32.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

_PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))
_HEIGHT, _WIDTH = 1, 2  # dimensions of CHWN

Images = Float[Array, "channels height width batch"]
Kernel = Float[Array, "3 3 channels outputs"]
Convolved = Float[Array, "outputs (height-1)//{stride}+1 (width-1)//{stride}+1 batch"]
Pooled = Float[Array, "channels height//2 width//2 batch"]


def _matmul(a: jax.Array, b: jax.Array, contract: tuple[int, int] = (1, 0)) -> jax.Array:
    """Multiply two matrices over the given dimensions, with sums in float32, or float64 if the matrices are."""
    dtype = a.dtype if a.dtype == jnp.float64 else jnp.float32
    return lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=dtype)


def _transposed(matrix: Float[Array, "rows columns"]) -> Float[Array, "columns rows"]:
    """Transpose a small matrix; on CPU by a constant gather, as XLA:CPU widens bfloat16 products with transposes."""
    rows, columns = matrix.shape
    order = np.arange(rows * columns).reshape(rows, columns).T

    def gather(matrix: jax.Array) -> jax.Array:
        return matrix.reshape(-1)[order.reshape(-1)].reshape(columns, rows)

    return lax.platform_dependent(matrix, cpu=gather, default=jnp.transpose)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _weighted(weights: Float[Array, "in out"], x: Float[Array, "in n"], dtype: DTypeLike) -> Float[Array, "out n"]:
    """Compute ``weights.T @ x`` for small weights and a long x; both are rounded to ``dtype``."""
    return _weighted_forward(weights, x, dtype)[0]


def _weighted_forward(weights, x, dtype):
    x = x.astype(dtype)
    return _matmul(_transposed(weights).astype(dtype), x), (weights, x)


def _weighted_backward(dtype, residuals, dy):
    weights, x = residuals
    dy = dy.astype(dtype)
    # XLA:CPU repacks the second factor: let it be the one with fewer rows.
    dweights = _matmul(x, dy, (1, 1)) if len(x) >= len(dy) else _transposed(_matmul(dy, x, (1, 1)))
    return dweights, _matmul(weights.astype(dtype), dy)


_weighted.defvjp(_weighted_forward, _weighted_backward)


def _mix(
    x: Images, weights: Float[Array, "channels outputs"], dtype: DTypeLike
) -> Float[Array, "outputs height width batch"]:
    """Compute weighted sums of the channels, pixel by pixel."""
    mixed = jnp.asarray(_weighted(weights, x.reshape(len(x), -1), dtype))
    return mixed.reshape(-1, *x.shape[1:])


def _shift(x: Float[Array, "*shape"], axis: int, by: int) -> Float[Array, "*shape"]:
    """Move the content along an axis by some positions, and fill up with zeros."""
    edges = [(by, -by, 0) if axis == dimension else (0, 0, 0) for dimension in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def conv3x3(x: Images, kernel: Kernel, stride: int, dtype: DTypeLike = jnp.float32) -> Convolved:
    """Convolve with padding 1 and stride 1 or 2, as ``torch.nn.functional.conv2d(x, kernel, None, stride, 1)``."""
    if stride == 2:
        return conv3x3_from_phases(to_phases(x), kernel, dtype)
    channels, out_channels = kernel.shape[2:]
    columns = jnp.concatenate([_shift(x, _WIDTH, 1), x, _shift(x, _WIDTH, -1)])
    weights = kernel.reshape(3, 3 * channels, out_channels).transpose(1, 0, 2).reshape(3 * channels, -1)
    above, centre, below = lax.split(_mix(columns, weights, dtype), (out_channels,) * 3)
    return _shift(above, _HEIGHT, 1) + centre + _shift(below, _HEIGHT, -1)


def conv3x3_im2col(x: Images, kernel: Kernel, stride: int, dtype: DTypeLike = jnp.float32) -> Convolved:
    """Convolve as ``conv3x3`` does, but by one product with nine copies of the input.

    This needs more memory and fewer operations, and suits small images on a GPU, where the operations cost most.
    """
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    copies = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    return _mix(jnp.concatenate(copies), kernel.reshape(-1, kernel.shape[-1]), dtype)


def conv3x3_xla(x: Images, kernel: Kernel, stride: int, dtype: DTypeLike = jnp.float32) -> Convolved:
    """Convolve as ``conv3x3`` does, but by XLA's own convolution, for GPU and TPU."""
    layout = ("CHWN", "HWIO", "CHWN")
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    y = lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout)
    return y.astype(jnp.float32)


def to_phases(x: Images) -> Float[Array, "4 channels (height+1)//2 (width+1)//2 batch"]:
    """Sort pixels by whether their row and column are even, after padding odd sizes with zeros."""
    channels, height, width, batch = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    x = x.reshape(channels, (height + 1) // 2, 2, (width + 1) // 2, 2, batch).transpose(2, 4, 0, 1, 3, 5)
    # XLA:CPU would fuse the reverse of this into what reads it, pixel by pixel.
    return lax.optimization_barrier(x.reshape(4, *x.shape[2:]))


def conv3x3_from_phases(
    phases: Float[Array, "4 channels rows columns batch"], kernel: Kernel, dtype: DTypeLike = jnp.float32
) -> Float[Array, "outputs rows columns batch"]:
    """Convolve an input that is given in phases, with stride 2 and padding 1."""
    channels, out_channels = kernel.shape[2:]
    taps = kernel.reshape(3, 3 * channels, out_channels)
    even_even, even_odd, odd_even, odd_odd = (phase[0] for phase in lax.split(phases, (1,) * 4))

    def columns(even: jax.Array, odd: jax.Array) -> jax.Array:
        """Stack the pixels 2n - 1, 2n and 2n + 1 of a row, which tap columns 0, 1 and 2 read."""
        return jnp.concatenate([_shift(odd, _WIDTH, 1), even, odd])

    # Tap rows 0, 1 and 2 read pixel rows 2m - 1, 2m and 2m + 1.
    centre = _mix(columns(even_even, even_odd), taps[1], dtype)
    odd = _mix(columns(odd_even, odd_odd), jnp.concatenate([taps[0], taps[2]], 1), dtype)
    above, below = lax.split(odd, (out_channels,) * 2)
    return _shift(above, _HEIGHT, 1) + centre + below


def conv3x3_to_phases(
    image: Float[Array, "1 height width batch"], kernel: Float[Array, "3 3 1 outputs"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "4 outputs height//2 width//2 batch"]:
    """Convolve one-channel images of even height and width, with stride 1 and padding 1, and return phases."""
    _, height, width, batch = image.shape
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # The four phases of a 2x2 block of outputs see a 4x4 window of the image, of which each uses 3x3.
    columns = jnp.concatenate([padded[:, :, v : v + width : 2] for v in range(4)])
    windows = jnp.concatenate([columns[:, u : u + height : 2] for u in range(4)])
    taps = [jnp.pad(kernel[:, :, 0], ((p, 1 - p), (q, 1 - q), (0, 0))).reshape(16, -1) for p, q in _PAIRS]
    return _mix(windows, jnp.concatenate(taps, 1), dtype).reshape(4, -1, height // 2, width // 2, batch)


def constant_response(
    kernel: Kernel, value: Float[Array, " channels"], sizes: tuple[int, int], stride: int
) -> Float[Array, "outputs ({sizes[0]}-1)//{stride}+1 ({sizes[1]}-1)//{stride}+1 1"]:
    """Convolve images whose pixels all have their channel's value, with zero padding around them.

    The result is what the constant term of an affine map adds, if a convolution follows the map.

    Args:
        kernel: The kernel.
        value: The value of every pixel of a channel.
        sizes: Height and width of the images.
        stride: 1 or 2.
    """
    rows, columns = (reads_pixel(size, stride) for size in sizes)
    taps = jnp.einsum("ijco,c->ijo", kernel, value)
    return jnp.einsum("mi,nj,ijo->omn", rows, columns, taps)[..., None]


def reads_pixel(size: int, stride: int) -> Float[np.ndarray, "outputs 3"]:
    """Return 1 where an output position reads a pixel through a tap, and 0 where it reads the padding."""
    pixels = np.arange(0, size, stride)[:, None] + np.arange(-1, 2)
    return ((0 <= pixels) & (pixels < size)).astype(np.float32)


def _windows(x: Images) -> list[Pooled]:
    """Return the four pixels of each whole 2x2 window, row by row."""
    _, height, width, _ = x.shape
    return [x[:, i : height // 2 * 2 : 2, j : width // 2 * 2 : 2] for i, j in _PAIRS]


@jax.custom_vjp
def max_pool(x: Images) -> Pooled:
    """Take the largest pixel of each 2x2 window.

    The gradient goes to the *first* largest pixel, as in PyTorch. Equal pixels are common here: wherever ReLU returned
    zeros, batch normalisation made them equal numbers.
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
