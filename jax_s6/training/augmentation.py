"""Random affine and elastic warps of images, on the device: (keys, images) -> images."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jax_s6.config import Hyperparameters

STRENGTHS = ("rotation", "shift", "scale", "shear", "elastic")
ELASTIC_SMOOTHNESS = 4.0
"""Standard deviation of the Gaussian that smooths an elastic displacement, in pixels (Simard et al., 2003)."""
_NUM_WAVES = 6  # cosines along each axis; the others would hold less than 0.1 % of the displacement's variance


def augment(keys: chex.PRNGKey, images: jax.Array, strengths: Hyperparameters) -> jax.Array:
    """Rotates, shears, scales, shifts and distorts each image at random, in one bilinear resampling.

    Args:
        keys: ``[batch]``, one an image, so that an image's warp does not depend on the rest of the batch.
        images: uint8 ``[batch, height, width, 1]``.
        strengths: Of which those of ``STRENGTHS``, in the units of ``AugmentConfig``: each amount is uniform in
            ``[-strength, strength]``, but ``elastic``, which is the root mean square of a displacement.

    Returns:
        float32 ``[batch, height, width, 1]`` in ``[0, 255]``; what comes from outside an image is 0.
    """
    affine_keys, elastic_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    amounts = jax.vmap(lambda key: jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0))(affine_keys).T
    angle = jnp.deg2rad(strengths.rotation) * amounts[0]
    shear = jnp.tan(jnp.deg2rad(strengths.shear) * amounts[1])
    zoom = 1 + strengths.scale * amounts[2]
    shift_x, shift_y = strengths.shift * amounts[3], strengths.shift * amounts[4]
    # The inverse map, from an output pixel to where it is read: unshift, rotate back, unshear, unscale.
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    matrix = ((cos, sin), (-sin - shear * cos, cos - shear * sin))
    _, height, width, _ = images.shape
    source = _source(matrix, (shift_y, shift_x), strengths.elastic * elastic_noise(elastic_keys), height, width)
    return _resample(images, source)


def elastic_noise(keys: chex.PRNGKey) -> jax.Array:
    """Draws smooth displacements as the amounts of a few cosines; see ``elastic_waves``.

    White noise under a Gaussian (Simard, Steinkraus and Platt, Best Practices for Convolutional Neural Networks Applied
    to Visual Document Analysis, 2003) has a spectrum that falls so fast that few cosines hold it.

    Args:
        keys: ``[batch]``, one an image.

    Returns:
        float32 ``[2, waves * waves, batch]``: along y and along x, for displacements in pixels with mean square 1.
    """
    amounts = jax.vmap(lambda key: jax.random.normal(key, (2 * _NUM_WAVES**2,)), out_axes=-1)(keys)
    return amounts.reshape(2, _NUM_WAVES**2, -1)


def elastic_waves(size: int) -> np.ndarray:
    """Returns the cosines along an axis, float32 ``[size, waves]``, weighted by the Gaussian.

    The squares of the weights add up to 1.
    """
    wave, pixel = np.arange(_NUM_WAVES), np.arange(size)[:, None]
    weights = np.exp(-0.5 * (np.pi * wave * ELASTIC_SMOOTHNESS / size) ** 2)
    cosines = np.where(wave > 0, np.sqrt(2), 1.0) * np.cos(np.pi * wave * (pixel + 0.5) / size)
    return (cosines * weights / np.sqrt((weights**2).sum())).astype(np.float32)


def annealed(strengths: Hyperparameters, progress: jax.Array) -> Hyperparameters:
    """Scales the strengths down towards the end of a run.

    Args:
        strengths: Of which those of ``augment`` and ``anneal_fraction``.
        progress: float32, steps taken over the steps of the whole run, in [0, 1].

    Returns:
        The strengths times ``min(1, (1 - progress) / anneal_fraction)``; unchanged if that is 0.
    """
    left = (1 - progress) / jnp.where(strengths.anneal_fraction > 0, strengths.anneal_fraction, 1.0)
    factor = jnp.where(strengths.anneal_fraction > 0, jnp.minimum(1.0, left), 1.0)
    return strengths._replace(**{name: factor * getattr(strengths, name) for name in STRENGTHS})


def _source(
    matrix: tuple[tuple[jax.Array, ...], ...], shift: tuple[jax.Array, ...], noise: jax.Array, height: int, width: int
) -> jax.Array:
    """Computes where every output pixel is read: ``matrix @ (pixel - centre - shift) + centre + displacement``.

    All of it is linear in fixed functions of the pixel, so that it is one matrix product: XLA:CPU would compute
    element-wise formulas once more for whatever reads them.

    Args:
        matrix: 2x2, of y and x, ``[batch]`` each.
        shift: Along y and x, ``[batch]`` each.
        noise: float32 ``[2, waves * waves, batch]``, of ``elastic_noise``.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        float32 ``[2, height, width, batch]``: y and x.
    """
    centre = (height - 1) / 2, (width - 1) / 2
    y, x = np.meshgrid(np.arange(height) - centre[0], np.arange(width) - centre[1], indexing="ij")
    waves = np.einsum("yi,xj->ijyx", elastic_waves(height), elastic_waves(width)).reshape(-1, height, width)
    functions = np.concatenate([[y, x, np.ones_like(y)], waves]).reshape(len(waves) + 3, -1).astype(np.float32)
    affine = jnp.stack(
        [jnp.stack([a, b, c - a * shift[0] - b * shift[1]]) for (a, b), c in zip(matrix, centre, strict=True)]
    )
    amounts = jnp.concatenate([affine, noise], axis=1)
    source = jnp.einsum("dkb,kn->dnb", amounts, functions, precision="highest")
    return source.reshape(2, height, width, -1)


def _resample(images: jax.Array, source: jax.Array) -> jax.Array:
    """Reads every output pixel at its source, bilinearly; zero outside.

    The four neighbours of a pixel are packed into one 32-bit word, so that a pixel costs one gather, not four.
    """
    _, height, width, _ = images.shape
    table = _pack_neighbours(images[..., 0].transpose(1, 2, 0))
    # From one pixel outside on, all that is read is zero; the clip keeps the gather inside the table.
    source_y, source_x = jnp.clip(source[0], -1, height) + 1, jnp.clip(source[1], -1, width) + 1
    row, column = jnp.floor(source_y), jnp.floor(source_x)
    index = (row * (width + 2) + column).astype(jnp.int32).reshape(height * width, -1)
    packed = jnp.take_along_axis(table, index, axis=0, mode="promise_in_bounds").reshape(row.shape)
    down, right = source_y - row, source_x - column
    a, b, c, d = (((packed >> bits) & 255).astype(jnp.int32).astype(jnp.float32) for bits in (0, 8, 16, 24))
    top, bottom = a + right * (b - a), c + right * (d - c)
    return (top + down * (bottom - top)).transpose(2, 0, 1)[..., None]


def _pack_neighbours(images: jax.Array) -> jax.Array:
    """Packs each pixel with those to its right, below and diagonal: uint8 ``[H, W, B]`` to uint32 ``[(H+2) (W+2), B]``.

    The table begins one pixel before the image in both directions and ends one after it.
    """
    height, width, batch = images.shape
    padded = jnp.pad(images, ((1, 2), (1, 2), (0, 0))).astype(jnp.uint32)
    corners = [padded[i : i + height + 2, j : j + width + 2] for i in (0, 1) for j in (0, 1)]
    packed = corners[0] | corners[1] << 8 | corners[2] << 16 | corners[3] << 24
    return packed.reshape(-1, batch)
