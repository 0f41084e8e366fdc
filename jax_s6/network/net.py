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
from jax_s6.network.layers import BatchNorm, Chunks, Conv3x3

NUM_PARAMS = 11_952
NUM_OUTPUTS = layers.NUM_CHANNELS
BATCH_AXIS = "batch"
"""The mesh axis over which the batch of one lane is split."""
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

    @nn.compact
    def __call__(self, chunks: Chunks, train: bool, rate: ArrayLike, keys: Key[Array, " images"] | None) -> Chunks:
        """Apply the layers to each chunk, ``[channels, height, width, batch]``; no dropout without keys."""
        channels, height, width, _ = chunks[0].shape
        # Phases need even sizes, and pay where images are large: in the first block.
        phases = self.convolution == "matmul" and channels == 1 and height % 2 == 0 and width % 2 == 0
        how = self.convolution, self.dtype, self.axis_name, self.recompute
        chunks = Conv3x3(1, *how, name="conv_0")(chunks, to_phases=phases)
        norm = BatchNorm(self.axis_name, name="norm_0")(chunks, train)
        chunks = Conv3x3(2, *how, name="conv_1")(chunks, norm)
        norms = BatchNorm(self.axis_name, name="norm_1")(chunks, train).per_chunk(len(chunks), self.axis_name)
        pairs = zip(chunks, norms, strict=True)
        chunks = tuple(layers.max_pool(x, norm) if self.pool else norm(x) for x, norm in pairs)
        return chunks if keys is None else layers.dropout(chunks, rate, keys)


class Net(nn.Module):
    """The reference network.

    Attributes:
        convolution: ``matmul`` or ``xla``.
        dtype: float32 or bfloat16, the type to which the factors of products are rounded.
        axis_name: The mesh axis that splits the batch, or None. Batch normalisation covers the whole batch.
        recompute: Whether the gradient computes the shifted copies of a convolution again instead of keeping them.
        num_chunks: Number of equal chunks of this device's part of a training batch, a power of two. The activations
            of a small chunk stay in a CPU's cache.
        few_operations: Whether to spend memory on fewer operations, each of which costs a GPU a microsecond: the blocks
            after the first, whose images are small, convolve by ``im2col`` instead of ``matmul``.
    """

    convolution: str = "matmul"
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    recompute: bool = False
    num_chunks: int = 1
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
        count = self.num_chunks if train else 1
        chunks = tuple(self._normalise(x) for x in jnp.split(images, count))
        numbers = jnp.arange(1, 4, dtype=jnp.uint32)
        block_keys: Any = [None] * 3
        if dropout_keys is not None:
            block_keys = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))(dropout_keys, numbers)
        for number, (rate, keys) in enumerate(zip(dropout_rates, block_keys, strict=True), start=1):
            im2col = self.few_operations and self.convolution == "matmul" and number > 1
            settings = (self.dtype, self.axis_name, self.recompute)
            block = Block(number < 3, "im2col" if im2col else self.convolution, *settings, name=f"conv{number}")
            chunks = block(chunks, train, rate, keys)
        return jnp.concatenate([x.mean((1, 2)).T for x in chunks])

    def _normalise(self, images: Images) -> Float[Array, "1 height width batch"]:
        """Return the images in CHWN, with the mean and the standard deviation that the network expects."""
        x = images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32)
        x = (x.transpose(3, 1, 2, 0) / 255 - MEAN) / STD
        # XLA:GPU would gather each pixel anew, across the images, for each of its copies.
        return jax.lax.optimization_barrier(x) if self.few_operations else x


def create(
    config: ModelConfig | StaticSettings,
    *,
    axis_name: str | None = None,
    recompute: bool = False,
    num_chunks: int = 1,
    platform: str | None = None,
) -> Net:
    """Make the network that the settings ask for on a platform; None: on that of the default backend.

    A network alone is not packed, but convolves by XLA instead; see ``packed`` for many.
    """
    convolution = backend.convolution(config, platform)
    choices = "xla" if convolution == "packed" else convolution, backend.operand_dtype(config, platform)
    return Net(*choices, axis_name, recompute, num_chunks, backend.few_operations(platform))


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
        channels, height, width, _ = outputs["intermediates"][name]["__call__"][0][0].shape
        names = "Conv3x3, ReLU, BN, Conv3x3 /2, ReLU, BN, " + ("Dropout" if name == "conv3" else "MaxPool2, Dropout")
        rows.append((name, names, f"{height}x{width}x{channels}", sum(x.size for x in jax.tree.leaves(params))))
    return [*rows, ("head", "Global average pooling, log-softmax", f"{NUM_OUTPUTS}", 0)]
