"""The network: three blocks, named as in the reference, with 11,952 parameters.

Images are ``[batch, height, width, 1]`` outside of the network and ``[channels, height, width, batch]`` inside; see
``convolutions`` for why.
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Key, UInt8

from jax_s6 import backend
from jax_s6.config import ModelConfig, StaticSettings
from jax_s6.network import layers
from jax_s6.network.layers import BatchNorm, Conv3x3

NUM_PARAMS = 11_952
NUM_OUTPUTS = layers.NUM_CHANNELS
BATCH_AXIS = "batch"
"""The mesh axis over which the batch of one lane is split."""
MAX_CHUNKS = 16
"""Largest number of chunks per batch. Each chunk is compiled separately."""
MEAN, STD = 0.1307, 0.3081
"""The network sees ``(pixel / 255 - MEAN) / STD``, which is the reference's ``Normalize``."""

Keys = Key[Array, " batch"]
Images = UInt8[Array, "batch height width 1"] | Float[Array, "batch height width 1"]


class Block(nn.Module):
    """Conv, ReLU, BN, Conv of stride 2, ReLU, BN, max-pooling unless it is the last block, and dropout.

    ``pool`` tells whether there is a max-pooling; the other attributes are those of ``Net``.
    """

    pool: bool
    convolution: str
    dtype: DTypeLike
    axis_name: str | None
    recompute: bool
    chunk_size: int | None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "channels height width batch"],
        train: bool,
        dropout_rate: ArrayLike,
        dropout_keys: Keys | None,
    ) -> Float[Array, "16 _ _ batch"]:
        """Apply the layers."""
        channels, height, width, batch = x.shape
        # Phases need even sizes, and pay where images are large: in the first block. So do chunks.
        phases = self.convolution == "matmul" and channels == 1 and height % 2 == 0 and width % 2 == 0
        count = 1
        if train and channels == 1 and self.chunk_size is not None:
            count = backend.equal_parts(batch, MAX_CHUNKS, self.chunk_size)
        chunks = tuple(jnp.split(x, count, -1)) if count > 1 else (x,)

        chunks = Conv3x3(1, self.convolution, self.dtype, self.recompute, name="conv_0")(chunks, to_phases=phases)
        norm = BatchNorm(self.axis_name, name="norm_0")(chunks, train)
        chunks = Conv3x3(2, self.convolution, self.dtype, self.recompute, name="conv_1")(chunks, norm)
        norm = BatchNorm(self.axis_name, name="norm_1")(chunks, train)
        chunks = layers.max_pool(chunks, norm) if self.pool else chunks
        x = norm(jnp.concatenate(chunks, -1))
        return x if dropout_keys is None else layers.dropout(x, dropout_rate, dropout_keys)


class Net(nn.Module):
    """The reference network.

    Attributes:
        convolution: ``matmul`` or ``xla``.
        dtype: float32 or bfloat16, the type to which the factors of products are rounded.
        axis_name: The mesh axis that splits the batch, or None. Batch normalisation covers the whole batch.
        recompute: Whether the gradient computes the shifted copies of a convolution again instead of keeping them.
        chunk_size: The first block splits a training batch into equal chunks of at least this number of images, whose
            activations stay in a CPU's cache. None: no chunks.
        few_operations: Whether to spend memory on fewer operations, each of which costs a GPU a microsecond: the blocks
            after the first, whose images are small, convolve by ``im2col`` instead of ``matmul``.
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
        images: Images,
        train: bool = False,
        dropout_rates: tuple[ArrayLike, ...] = (0.0, 0.0, 0.0),
        dropout_keys: Keys | None = None,
    ) -> Float[Array, "batch outputs"]:
        """Compute logits, the inputs of the log-softmax.

        Args:
            images: Pixels in ``[0, 255]``.
            train: Whether to normalise by the batch, and update ``batch_stats``, or by the running statistics.
            dropout_rates: The rates after conv1, conv2 and conv3. They may be traced.
            dropout_keys: One key per image; None: no dropout.
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
    config: ModelConfig | StaticSettings,
    *,
    axis_name: str | None = None,
    recompute: bool = False,
    platform: str | None = None,
) -> Net:
    """Make the network that the settings ask for on a platform; None: on that of the default backend."""
    choices = backend.convolution(config, platform), backend.operand_dtype(config, platform)
    return Net(*choices, axis_name, recompute, backend.chunk_size(platform), backend.few_operations(platform))


def init(key: Key[Array, ""]) -> dict[str, Any]:
    """Draw the initial variables.

    Returns:
        ``{"params": ..., "batch_stats": ...}``, float32: 11,952 parameters and 6 x 2 x 16 running statistics.
    """
    variables = dict(Net().init(key, jnp.zeros((2, 28, 28, 1))))
    chex.assert_equal(sum(x.size for x in jax.tree.leaves(variables["params"])), NUM_PARAMS)
    return variables


def layer_table() -> list[tuple[str, str, str, int]]:
    """List each block's name, layers, output shape for 28x28 images, and number of parameters."""
    outputs = jax.eval_shape(
        lambda: Net().init_with_output(
            jax.random.key(0), jnp.zeros((2, 28, 28, 1)), capture_intermediates=True, mutable=True
        )
    )[1]
    rows = []
    for name, params in outputs["params"].items():
        channels, height, width, _ = outputs["intermediates"][name]["__call__"][0].shape
        names = "Conv3x3, ReLU, BN, Conv3x3 /2, ReLU, BN, " + ("Dropout" if name == "conv3" else "MaxPool2, Dropout")
        rows.append((name, names, f"{height}x{width}x{channels}", sum(x.size for x in jax.tree.leaves(params))))
    return [*rows, ("head", "Global average pooling, log-softmax", f"{NUM_OUTPUTS}", 0)]
