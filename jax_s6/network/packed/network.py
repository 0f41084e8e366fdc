"""The network of ``net.Net`` on lanes side by side."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key, UInt8

from jax_s6.network.chunks import copies, mean_over_batch, num_devices
from jax_s6.network.convolutions import reads_pixel
from jax_s6.network.layers import EPSILON, MOMENTUM, NUM_CHANNELS, dropout_keep
from jax_s6.network.net import MEAN, STD
from jax_s6.network.packed.layout import LIMIT, Convolved, Lanes, Packed, Packing, Pooled, Signs, clip, exact_product
from jax_s6.network.packed.operations import bias_relu, convolve, max_pool

Images = UInt8[Array, "lanes images height width 1"] | Float[Array, "lanes images height width 1"]


class Norm(NamedTuple):
    """The map ``scale * (x - mean) + bias`` of each lane's channels: a batch normalisation."""

    mean: Lanes
    scale: Lanes
    bias: Lanes


def apply(
    variables: dict[str, Any],
    images: Images,
    packing: Packing,
    *,
    train: bool,
    dropout_rates: tuple[ArrayLike, ...] = (0.0, 0.0, 0.0),
    dropout_keys: Key[Array, "lanes images"] | None = None,
) -> tuple[Float[Array, "lanes images outputs"], Any]:
    """Compute the logits of all lanes, and their new running statistics, which are the old ones without ``train``.

    Args:
        variables: Parameters and running statistics, arrays ``[lanes, ...]``.
        images: Pixels in ``[0, 255]``.
        packing: The layout.
        train: Whether to normalise by the batch or by the running statistics.
        dropout_rates: Three rates, each a number or ``[lanes]``.
        dropout_keys: One key per image; None: no dropout.
    """
    lanes, count, height, width, _ = images.shape
    pixels = images.reshape(lanes, -1, height, width).transpose(1, 2, 3, 0)
    x = ((pixels.astype(jnp.float32) / 255 - MEAN) / STD).astype(packing.dtype)
    stats: dict[str, Any] = {}
    for number in (1, 2, 3):
        name = f"conv{number}"
        params, old = variables["params"][name], variables["batch_stats"][name]
        x, stats[name] = block(x, name, params, old, train, number < 3, packing)
        if dropout_keys is not None:
            x = dropout(x, dropout_rates[number - 1], dropout_keys, number, packing)
    logits = x.astype(jnp.float32).mean((1, 2)).reshape(count, lanes, NUM_CHANNELS).transpose(1, 0, 2)
    return jnp.where(overflowing(stats)[:, None, None], jnp.nan, logits), stats


def block(
    x: Packed, name: str, params: Any, stats: Any, train: bool, pool: bool, packing: Packing
) -> tuple[Convolved, dict[str, Any]]:
    """Apply a block's layers but for dropout; return the result and the new running statistics."""
    # The largest number after a map of negative scale is the smallest before it, and the largest with a minus.
    sign = jnp.where(params["norm_1"]["scale"] < 0, jnp.float32(-1), jnp.float32(1))
    with jax.named_scope(f"{name}/conv_0"):
        x, moments = conv_relu(x, params["conv_0"], None, 1, jnp.ones_like(sign), packing)
    with jax.named_scope(f"{name}/norm_0"):
        count = math.prod(x.shape[:3])
        norm, new_0 = batch_norm(moments, count, jnp.ones_like(sign), params["norm_0"], stats["norm_0"], train, packing)
    with jax.named_scope(f"{name}/conv_1"):
        x, moments = conv_relu(x, params["conv_1"], norm, 2, sign, packing)
    with jax.named_scope(f"{name}/norm_1"):
        count = math.prod(x.shape[:3])
        norm, new_1 = batch_norm(moments, count, sign, params["norm_1"], stats["norm_1"], train, packing)
        return pool_and_norm(x, norm, sign, pool, packing), {"norm_0": new_0, "norm_1": new_1}


def overflowing(stats: dict[str, Any]) -> Bool[Array, " lanes"]:
    """Return which lanes have met the limit: they have diverged."""
    squares = [norm["var"] + norm["mean"] * norm["mean"] for block in stats.values() for norm in block.values()]
    return functools.reduce(jnp.maximum, squares).max(1) >= 1e-6 * LIMIT**2


def conv_relu(
    x: Packed, params: Any, norm: Norm | None, stride: int, sign: Signs, packing: Packing
) -> tuple[Convolved, Float[Array, "2 outputs"]]:
    """Apply the map of a batch normalisation, if given, a 3x3 convolution with padding 1, bias, ReLU, and the sign."""
    kernel, bias = params["kernel"], params["bias"]
    if norm is None:
        y = convolve(x, clip(kernel), stride, packing)
        return bias_relu(y, packing.per_channel(clip(bias)), packing.per_channel(sign))
    # conv(scale * (x - mean) + bias) = conv'(x) + the response to the constant
    folded = kernel * norm.scale[:, None, None, :, None]
    # The mean meets the same rounded kernel here and in the convolution, so that it cancels.
    rounded = folded.astype(packing.dtype).astype(jnp.float32)
    taps = kernel * norm.bias[:, None, None, :, None] - rounded * norm.mean[:, None, None, :, None]
    folded, taps, bias = copies((clip(folded), clip(taps.sum(3)), clip(bias)), 1, packing.axis_name)[0]
    constant = response(packing.channels(taps), (x.shape[1], x.shape[2]), stride) + packing.per_channel(bias)
    return bias_relu(convolve(x, folded, stride, packing), constant, packing.per_channel(sign))


def response(
    taps: Float[Array, "3 3 channels"], sizes: tuple[int, int], stride: int
) -> Float[Array, "1 rows columns channels"]:
    """Add up the taps of a 3x3 window that do not read the padding, at each position of an output."""
    rows, columns = (reads_pixel(size, stride) for size in sizes)
    reads = np.einsum("mi,nj->mnij", rows, columns).reshape(-1, 9)
    positions = exact_product(reads, taps.reshape(9, -1))
    return positions.reshape(1, len(rows), len(columns), -1)


def batch_norm(
    moments: Float[Array, "2 packed"], count: int, sign: Lanes, params: Any, stats: Any, train: bool, packing: Packing
) -> tuple[Norm, Any]:
    """Return the map that normalises by the statistics of the whole batch, or the running ones, and the new ones.

    The numbers of which these are the moments, ``count`` per channel and lane on this device, have the sign; the map
    and the statistics are of those without it.
    """
    if not train:
        return Norm(stats["mean"], params["scale"] * lax.rsqrt(stats["var"] + EPSILON), params["bias"]), stats
    mean, square = mean_over_batch([moments.reshape(2, packing.lanes, -1)], packing.axis_name)
    mean, var = mean * sign, jnp.maximum(square - mean * mean, 0.0)
    count *= num_devices(packing.axis_name)
    new = {"mean": mean, "var": var * (count / (count - 1))}
    running = {name: MOMENTUM * stats[name] + (1 - MOMENTUM) * value for name, value in new.items()}
    return Norm(mean, params["scale"] * lax.rsqrt(var + EPSILON), params["bias"]), running


def pool_and_norm(x: Packed, norm: Norm, sign: Signs, pool: bool, packing: Packing) -> Pooled:
    """Take the largest pixel of each 2x2 window, and apply a map to it, which includes the sign of ``x``."""
    shift = clip(norm.bias - norm.mean * norm.scale)
    scale, shift = copies((clip(norm.scale * sign), shift), 1, packing.axis_name)[0]
    x = max_pool(x) if pool else x
    y = x.astype(jnp.float32) * packing.per_channel(scale) + packing.per_channel(shift)
    return jnp.clip(y, -LIMIT, LIMIT).astype(x.dtype)


def dropout(x: Packed, rate: ArrayLike, keys: Key[Array, "lanes images"], number: int, packing: Packing) -> Packed:
    """Drop the same numbers as ``layers.dropout`` does for each lane's images."""
    _, height, width, _ = x.shape
    rates = jnp.broadcast_to(jnp.asarray(rate, jnp.float32), (packing.lanes,))
    fold = functools.partial(jax.random.fold_in, data=jnp.uint32(number))
    keep = jax.vmap(lambda rate, keys: dropout_keep(NUM_CHANNELS * height * width, rate, jax.vmap(fold)(keys)))
    masks = keep(rates, keys).reshape(packing.lanes, NUM_CHANNELS, height, width, -1)
    masks = masks.transpose(4, 2, 3, 0, 1).reshape(x.shape)
    gain = packing.per_channel(jnp.broadcast_to((1 / (1 - rates))[:, None], (packing.lanes, NUM_CHANNELS)))
    return jnp.where(masks, x.astype(jnp.float32) * gain, 0.0).astype(x.dtype)
