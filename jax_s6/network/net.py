"""The network: three blocks named as in the reference, 11,952 parameters. All of Flax is in this file.

Images are ``[batch, height, width, 1]`` outside and CHWN inside; see ``ops`` for why.
"""

import math
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jax_s6 import backend
from jax_s6.config import ModelConfig
from jax_s6.network import convolutions as ops

NUM_PARAMS = 11_952
NUM_OUTPUTS = 16
BATCH_AXIS = "batch"
"""The mesh axis over which one lane's batch is split."""

MOST_CHUNKS = 16
"""Of a batch; each is compiled by itself."""

# Each image is (value - MEAN) / STD, with value in [0, 1]: the reference's Normalize.
MEAN, STD = 0.1307, 0.3081


def _uniform_by_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for a convolution's kernel and for its bias."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def per_channel(x: jax.Array, ndim: int = 4) -> jax.Array:
    """Gives ``[channels]`` the dimensions of CHWN, or of phases if ``ndim`` is 5."""
    return x.reshape((1,) * (ndim - 4) + (-1, 1, 1, 1))


Chunks = jax.Array | tuple[jax.Array, ...]
"""Activations of a batch, CHWN or phases, or a tuple of those of its equal chunks: ``jax.tree.map`` takes both."""


class Affine(NamedTuple):
    """A map ``scale * (x - centre) + shift`` of each channel: float32 ``[channels]`` each, the centre a constant."""

    centre: jax.Array
    scale: jax.Array
    shift: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the map to CHWN."""
        return (x - per_channel(self.centre)) * per_channel(self.scale) + per_channel(self.shift)


class BatchNorm(nn.Module):
    """Batch normalisation as PyTorch's, whose running variance is unbiased, given as a map to be applied later.

    What comes after it, a convolution or a pooling, can take the map over into its weights or apply it to fewer
    numbers; and the gradients of the map's 2 x 16 numbers replace sums over whole activations.
    """

    axis_name: str | None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Chunks, train: bool) -> Affine:
        """Normalises CHWN or phases by the whole batch's statistics (over all devices), or by the running ones."""
        chunks = jax.tree.leaves(x)
        scale = self.param("scale", nn.initializers.ones, (NUM_OUTPUTS,))
        bias = self.param("bias", nn.initializers.zeros, (NUM_OUTPUTS,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (NUM_OUTPUTS,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (NUM_OUTPUTS,))
        if train:
            ndim = chunks[0].ndim
            axes = tuple(axis for axis in range(ndim) if axis != ndim - 4)
            sums = jnp.stack([jnp.stack([chunk.mean(axes), (chunk * chunk).mean(axes)]) for chunk in chunks]).mean(0)
            mean, square = sums if self.axis_name is None else jax.lax.pmean(sums, self.axis_name)
            var = jnp.maximum(square - mean * mean, 0.0)
            if not self.is_initializing():
                size = sum(chunk.size for chunk in chunks) // NUM_OUTPUTS
                count = size * (1 if self.axis_name is None else jax.lax.axis_size(self.axis_name))
                new = 1 - self.momentum
                running_mean.value = self.momentum * running_mean.value + new * mean
                running_var.value = self.momentum * running_var.value + new * var * (count / (count - 1))
        else:
            mean, var = running_mean.value, running_var.value
        # The map is about the mean, so that bfloat16 rounds differences from it, but not differentiated through it: the
        # gradient of the shift, 16 numbers, stands for what would be a sum over the whole of x.
        centre, scale = jax.lax.stop_gradient(mean), scale * jax.lax.rsqrt(var + self.epsilon)
        return Affine(centre, scale, bias - (mean - centre) * scale)


class Conv3x3(nn.Module):
    """A 3x3 convolution with padding 1 and a bias, then ReLU; ``convolution`` is ``matmul``, ``im2col`` or ``xla``."""

    stride: int
    convolution: str
    dtype: DTypeLike
    recompute: bool = False

    @nn.compact
    def __call__(self, x: Chunks, norm: Affine | None = None, to_phases: bool = False) -> Chunks:
        """Maps CHWN, or phases if the stride is 2, to CHWN, or to phases if asked; ``norm`` is applied to x first."""
        *_, in_channels, height, width, _ = shape = jax.tree.leaves(x)[0].shape
        from_phases = len(shape) == 5
        init = _uniform_by_fan_in(9 * in_channels)
        kernel = self.param("kernel", init, (3, 3, in_channels, NUM_OUTPUTS))
        bias = per_channel(self.param("bias", init, (NUM_OUTPUTS,)), 5 if to_phases else 4)
        centre = None
        if norm is not None and self.convolution == "im2col":
            x = jax.tree.map(norm, x)
        elif norm is not None:  # conv(scale (x - centre) + shift) = conv'(x - centre) + the response to shift
            sizes = (2 * height, 2 * width) if from_phases else (height, width)
            bias = bias + ops.constant_response(kernel, norm.shift, sizes, self.stride)
            kernel = kernel * norm.scale.reshape(1, 1, -1, 1)
            centre = per_channel(norm.centre, len(shape))

        def convolve(x: jax.Array, kernel: jax.Array, centre: jax.Array | None) -> jax.Array:
            x = x if centre is None else x - centre
            if to_phases:
                return ops.conv3x3_to_phases(x, kernel, self.dtype)
            if from_phases:
                return ops.conv3x3_from_phases(x, kernel, self.dtype)
            conv3x3 = {"matmul": ops.conv3x3, "im2col": ops.conv3x3_im2col, "xla": ops.conv3x3_xla}
            return conv3x3[self.convolution](x, kernel, self.stride, self.dtype)

        if self.recompute or isinstance(x, tuple):
            convolve = jax.checkpoint(convolve)
        return jax.tree.map(lambda x: nn.relu(convolve(x, kernel, centre) + bias), x)


class Dropout(nn.Module):
    """nn.Dropout whose rate may be traced, and whose masks do not depend on how the batch is split over devices."""

    rate: jax.typing.ArrayLike

    @nn.compact
    def __call__(self, x: jax.Array, keys: chex.PRNGKey | None) -> jax.Array:
        """Zeroes each number of ``x`` ``[C, H, W, B]`` with probability ``rate``; ``keys`` ``[B]``, one an image."""
        if keys is None:
            return x
        keep_rate = 1 - jnp.float32(self.rate)
        size = math.prod(x.shape[:-1])
        words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 2),)), out_axes=-1)(keys)
        halves = jnp.concatenate([words & 0xFFFF, words >> 16])[:size]  # 16 random bits are enough to decide
        keep = halves.reshape(x.shape) < jnp.round(keep_rate * 2**16).astype(jnp.uint32)
        return jnp.where(keep, x / keep_rate, 0.0)


class Block(nn.Module):
    """Conv, ReLU, BN, Conv of stride 2, ReLU, BN, max-pooling unless it is the last, dropout."""

    pool: bool
    convolution: str
    dtype: DTypeLike
    axis_name: str | None
    recompute: bool
    chunk_size: int | None

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, dropout_rate: jax.typing.ArrayLike, dropout_keys: chex.PRNGKey | None
    ) -> jax.Array:
        """Maps ``[C, H, W, B]`` to ``[16, H', W', B]``."""
        channels, height, width, batch = x.shape
        # Phases need even sizes, and pay where images are large: on the first block. So do chunks.
        phases = self.convolution == "matmul" and channels == 1 and height % 2 == 0 and width % 2 == 0
        chunks: Chunks = x
        if train and channels == 1 and self.chunk_size is not None:
            count = backend.equal_parts(batch, MOST_CHUNKS, self.chunk_size)
            chunks = tuple(jnp.split(x, count, -1)) if count > 1 else x

        chunks = Conv3x3(1, self.convolution, self.dtype, self.recompute, name="conv_0")(chunks, to_phases=phases)
        norm = BatchNorm(self.axis_name, name="norm_0")(chunks, train)
        chunks = Conv3x3(2, self.convolution, self.dtype, self.recompute, name="conv_1")(chunks, norm)
        norm = BatchNorm(self.axis_name, name="norm_1")(chunks, train)
        if self.pool:  # the largest of what follows the map is the largest, or by a negative scale the smallest, before
            sign = per_channel(jnp.where(norm.scale < 0, -1.0, 1.0))
            chunks = jax.tree.map(lambda chunk: ops.max_pool(chunk * sign) * sign, chunks)
        x = norm(jnp.concatenate(jax.tree.leaves(chunks), -1))
        return Dropout(dropout_rate)(x, dropout_keys)


class Net(nn.Module):
    """The reference network.

    Attributes:
        convolution: ``matmul`` or ``xla``.
        dtype: float32 or bfloat16, of the convolutions' operands.
        axis_name: The mesh axis that splits the batch, if any: batch normalisation goes over all of it.
        recompute: Whether the gradient makes a convolution's shifted copies once more, rather than keep them in memory.
        chunk_size: The first block takes a training batch in equal chunks of at least so many images, whose activations
            a CPU's cache holds; all at once if None.
        few_operations: Whether to spend memory on fewer operations, which each cost a GPU a microsecond: the blocks
            after the first, whose images are small, convolve by ``im2col`` in place of ``matmul``.
    """

    convolution: str = "matmul"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    recompute: bool = False
    chunk_size: int | None = None
    few_operations: bool = False

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        dropout_rates: tuple[jax.typing.ArrayLike, ...] = (0.0, 0.0, 0.0),
        dropout_keys: chex.PRNGKey | None = None,
    ) -> jax.Array:
        """Computes logits.

        Args:
            images: uint8 or float32 ``[batch, height, width, 1]``, in ``[0, 255]``.
            train: Whether to normalise by the batch, updating ``batch_stats``, or by the running statistics.
            dropout_rates: After conv1, conv2 and conv3, which may be traced.
            dropout_keys: ``[batch]``, one an image; no dropout if None.

        Returns:
            float32 ``[batch, 16]``: the inputs of the log-softmax.
        """
        x = images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32)
        x = (x.transpose(3, 1, 2, 0) / 255 - MEAN) / STD
        if self.few_operations:  # XLA:GPU would gather each pixel anew, across the images, for each of its copies
            x = jax.lax.optimization_barrier(x)
        numbers = jnp.arange(1, 4, dtype=jnp.uint32)
        block_keys: Any = [None] * 3
        if dropout_keys is not None:
            block_keys = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))(dropout_keys, numbers)
        for number, (rate, keys) in enumerate(zip(dropout_rates, block_keys, strict=True), start=1):
            im2col = self.few_operations and self.convolution == "matmul" and number > 1
            settings = (self.dtype, self.axis_name, self.recompute, self.chunk_size)
            block = Block(number < 3, "im2col" if im2col else self.convolution, *settings, name=f"conv{number}")
            x = block(x, train, rate, keys)
        return x.mean((1, 2)).T


def create(
    config: ModelConfig, *, axis_name: str | None = None, recompute: bool = False, platform: str | None = None
) -> Net:
    """Makes the module that a configuration asks for on a platform (the default backend's if None)."""
    how = backend.convolution(config, platform), backend.operand_dtype(config, platform)
    return Net(*how, axis_name, recompute, backend.chunk_size(platform), backend.few_operations(platform))


def init(key: chex.PRNGKey) -> dict[str, Any]:
    """Draws the initial variables.

    Args:
        key: Of the weights.

    Returns:
        ``{"params": ..., "batch_stats": ...}``, float32: 11,952 parameters and 6 x 2 x 16 running statistics.
    """
    variables = dict(Net().init(key, jnp.zeros((2, 28, 28, 1))))
    chex.assert_equal(sum(x.size for x in jax.tree.leaves(variables["params"])), NUM_PARAMS)
    return variables


def layer_table() -> list[tuple[str, str, str, int]]:
    """Lists block, layers, output shape on 28x28 images, and parameters, from an abstract run of the module."""
    outputs = jax.eval_shape(
        lambda: Net().init_with_output(
            jax.random.key(0), jnp.zeros((2, 28, 28, 1)), capture_intermediates=True, mutable=True
        )
    )[1]
    rows = []
    for name, params in outputs["params"].items():
        channels, height, width, _ = outputs["intermediates"][name]["__call__"][0].shape
        layers = "Conv3x3, ReLU, BN, Conv3x3 /2, ReLU, BN, " + ("Dropout" if name == "conv3" else "MaxPool2, Dropout")
        rows.append((name, layers, f"{height}x{width}x{channels}", sum(x.size for x in jax.tree.leaves(params))))
    return [*rows, ("head", "Global average pooling, log-softmax", f"{NUM_OUTPUTS}", 0)]
