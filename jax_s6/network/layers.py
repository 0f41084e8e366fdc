"""The layers: convolution with ReLU, batch normalisation, max-pooling and dropout, on arrays in CHWN.

They take and return a batch as a tuple of equal chunks, each ``[channels, height, width, batch]``, or in phases; see
``convolutions`` for both. Whoever calls the network decides how many chunks there are.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Key

from jax_s6.network import convolutions
from jax_s6.network.chunks import copies, mean_over_batch, num_devices

NUM_CHANNELS = 16
MOMENTUM, EPSILON = 0.9, 1e-5
"""Of batch normalisation: the weight of the old running statistics, and what is added to the variance."""
Images = Float[Array, "channels height width batch"]
Chunks = tuple[Float[Array, "... batch"], ...]
Channels = Float[Array, " channels"]
_CONVOLUTIONS = {
    "matmul": convolutions.conv3x3,
    "im2col": convolutions.conv3x3_im2col,
    "xla": convolutions.conv3x3_xla,
}


def per_channel(x: Channels, ndim: int = 4) -> Float[Array, "*ones channels 1 1 1"]:
    """Give an array the dimensions of CHWN, or of phases if ``ndim`` is 5."""
    return x.reshape((1,) * (ndim - 4) + (-1, 1, 1, 1))


class Affine(NamedTuple):
    """A map ``scale * (x - centre) + shift`` of each channel. No gradient flows through the centre."""

    centre: Channels
    scale: Channels
    shift: Channels

    def __call__(self, x: Images) -> Images:
        """Apply the map."""
        return (x - per_channel(self.centre)) * per_channel(self.scale) + per_channel(self.shift)

    def per_chunk(self, count: int, axis_name: str | None) -> list["Affine"]:
        """Return the map once for each of a device's chunks; see ``copies``."""
        return [Affine(self.centre, *pair) for pair in copies((self.scale, self.shift), count, axis_name)]


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's unbiased running variance, returned as a map that is applied later.

    The next layer, a convolution or a pooling, can fold the map into its weights or apply it to fewer numbers. The
    gradients of the map's 2 x 16 numbers also replace sums over whole activations.

    Attributes:
        axis_name: The mesh axis that splits the batch, or None.
    """

    axis_name: str | None

    @nn.compact
    def __call__(self, chunks: Chunks, train: bool) -> Affine:
        """Normalise by the statistics of the whole batch, on all devices, or by the running statistics."""
        scale = self.param("scale", nn.initializers.ones, (NUM_CHANNELS,))
        bias = self.param("bias", nn.initializers.zeros, (NUM_CHANNELS,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (NUM_CHANNELS,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (NUM_CHANNELS,))
        if train:
            ndim = chunks[0].ndim
            axes = tuple(axis for axis in range(ndim) if axis != ndim - 4)
            moments = [jnp.stack([chunk.mean(axes), (chunk * chunk).mean(axes)]) for chunk in chunks]
            mean, square = mean_over_batch(moments, self.axis_name)
            var = jnp.maximum(square - mean * mean, 0.0)
            if not self.is_initializing():
                count = num_devices(self.axis_name) * sum(chunk.size for chunk in chunks) // NUM_CHANNELS
                new = 1 - MOMENTUM
                running_mean.value = MOMENTUM * running_mean.value + new * mean
                running_var.value = MOMENTUM * running_var.value + new * var * (count / (count - 1))
        else:
            mean, var = running_mean.value, running_var.value
        # The map is about the mean, so that bfloat16 rounds differences from it, but not differentiated through it: the
        # gradient of the shift, 16 numbers, stands for what would be a sum over the whole of x.
        centre, scale = jax.lax.stop_gradient(mean), scale * jax.lax.rsqrt(var + EPSILON)
        return Affine(centre, scale, bias - (mean - centre) * scale)


class Conv3x3(nn.Module):
    """A 3x3 convolution with padding 1 and a bias, followed by ReLU.

    Attributes:
        stride: 1 or 2.
        convolution: ``matmul``, ``im2col`` or ``xla``.
        dtype: The type to which the factors of products are rounded.
        axis_name: The mesh axis that splits the batch, or None.
        recompute: Whether the gradient computes shifted copies again instead of keeping them in memory. It always does
            if there are several chunks.
    """

    stride: int
    convolution: str
    dtype: DTypeLike
    axis_name: str | None = None
    recompute: bool = False

    @nn.compact
    def __call__(self, chunks: Chunks, norm: Affine | None = None, to_phases: bool = False) -> Chunks:
        """Apply ``norm``, if given, and convolve CHWN, or phases if the stride is 2, to CHWN or to phases."""
        *_, in_channels, height, width, _ = shape = chunks[0].shape
        from_phases, axis_name = len(shape) == 5, None
        init = _uniform_by_fan_in(9 * in_channels)
        kernel = self.param("kernel", init, (3, 3, in_channels, NUM_CHANNELS))
        bias = per_channel(self.param("bias", init, (NUM_CHANNELS,)), 5 if to_phases else 4)
        centre = None
        if norm is not None and self.convolution == "im2col":
            norms = norm.per_chunk(len(chunks), self.axis_name)
            chunks = tuple(norm(chunk) for norm, chunk in zip(norms, chunks, strict=True))
        elif norm is not None:  # conv(scale (x - centre) + shift) = conv'(x - centre) + the response to shift
            sizes = (2 * height, 2 * width) if from_phases else (height, width)
            bias = bias + convolutions.constant_response(kernel, norm.shift, sizes, self.stride)
            kernel = kernel * norm.scale.reshape(1, 1, -1, 1)
            centre, axis_name = per_channel(norm.centre, len(shape)), self.axis_name

        def convolve(x: jax.Array, kernel: jax.Array, centre: jax.Array | None) -> jax.Array:
            x = x if centre is None else x - centre
            if to_phases:
                return convolutions.conv3x3_to_phases(x, kernel, self.dtype)
            if from_phases:
                return convolutions.conv3x3_from_phases(x, kernel, self.dtype)
            return _CONVOLUTIONS[self.convolution](x, kernel, self.stride, self.dtype)

        if self.recompute or len(chunks) > 1:
            convolve = jax.checkpoint(convolve)
        pairs = copies((kernel, bias), len(chunks), axis_name)
        return tuple(nn.relu(convolve(x, k, centre) + b) for x, (k, b) in zip(chunks, pairs, strict=True))


def max_pool(x: Images, norm: Affine) -> Float[Array, "channels height//2 width//2 batch"]:
    """Take the largest pixel of each 2x2 window after a map, which is then computed for a quarter of the pixels.

    It is the largest before the map, or the smallest where the scale is negative.
    """
    sign = per_channel(jnp.where(norm.scale < 0, -1.0, 1.0))
    return norm(convolutions.max_pool(x * sign) * sign)


def dropout(chunks: Chunks, rate: ArrayLike, keys: Key[Array, " images"]) -> Chunks:
    """Zero each number with probability ``rate``, which may be traced, and divide the others by ``1 - rate``.

    There is one key per image of all chunks, so that the masks do not depend on how the batch is split.
    """
    size = math.prod(chunks[0].shape[:-1])
    keep = jax.vmap(lambda keys: dropout_keep(size, rate, keys))(keys.reshape(len(chunks), -1))
    gain, pairs = 1 / (1 - jnp.float32(rate)), zip(chunks, keep, strict=True)  # XLA would multiply or divide
    return tuple(jnp.where(keep.reshape(x.shape), x * gain, 0.0) for x, keep in pairs)


def dropout_keep(size: int, rate: ArrayLike, keys: Key[Array, " batch"]) -> Bool[Array, "{size} batch"]:
    """Return which of the ``size`` numbers of each image dropout keeps."""
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 2),)), out_axes=-1)(keys)
    halves = jnp.concatenate([words & 0xFFFF, words >> 16])[:size]  # 16 random bits are enough to decide
    return halves < jnp.round((1 - jnp.float32(rate)) * 2**16).astype(jnp.uint32)


def _uniform_by_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Draw from U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for a convolution's kernel and for its bias."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
