"""Random affine and elastic transformations of images, on the device. Their strengths are hyper-parameters."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key, UInt8, UInt32

from jax_s6.config import Hyperparameters

STRENGTHS = ("rotation", "shift", "scale", "shear", "elastic")
ELASTIC_SMOOTHNESS = 4.0
"""Standard deviation of the Gaussian that smooths an elastic displacement, in pixels (Simard et al., 2003)."""
_NUM_WAVES = 6  # cosines along each axis; the others would hold less than 0.1 % of the displacement's variance

Images = Float32[Array, "batch height width 1"]


def augment(
    keys: Key[Array, " batch"], images: UInt8[Array, "batch height width 1"], strengths: Hyperparameters
) -> Images:
    """Rotate, shear, scale, shift and distort each image at random, by one bilinear resampling.

    Args:
        keys: One per image, so that an image's transformation does not depend on the rest of the batch.
        images: The images.
        strengths: Those named in ``STRENGTHS`` are used, in the units of ``AugmentConfig``. Each amount is drawn
            uniformly from ``[-strength, strength]``. ``elastic`` is the root mean square of a displacement instead.

    Returns:
        The transformed images, in ``[0, 255]``, with 0 where a pixel is read outside its image.
    """
    affine_keys, elastic_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    amounts = jax.vmap(lambda key: jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0))(affine_keys).T
    angle = jnp.deg2rad(strengths.rotation) * amounts[0]
    shear = jnp.tan(jnp.deg2rad(strengths.shear) * amounts[1])
    zoom = 1 + strengths.scale * amounts[2]
    shift_x, shift_y = strengths.shift * amounts[3], strengths.shift * amounts[4]
    # The inverse map, from an output pixel to where it is read: undo shift, rotation, shear and scale.
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    matrix = ((cos, sin), (-sin - shear * cos, cos - shear * sin))
    _, height, width, _ = images.shape
    source = _source(matrix, (shift_y, shift_x), strengths.elastic * elastic_noise(elastic_keys), height, width)
    return _resample(images, source)


def elastic_noise(keys: Key[Array, " batch"]) -> Float32[Array, "2 waves_squared batch"]:
    """Draw smooth displacements as the amplitudes of a few cosines; see ``elastic_waves``.

    White noise smoothed by a Gaussian (Simard, Steinkraus and Platt, Best Practices for Convolutional Neural Networks
    Applied to Visual Document Analysis, 2003) has a spectrum that falls so fast that a few cosines are enough.

    Args:
        keys: One per image.

    Returns:
        Amplitudes along y and along x, for displacements in pixels whose mean square is 1.
    """
    amounts = jax.vmap(lambda key: jax.random.normal(key, (2 * _NUM_WAVES**2,)), out_axes=-1)(keys)
    return amounts.reshape(2, _NUM_WAVES**2, -1)


def elastic_waves(size: int) -> Float32[np.ndarray, "{size} waves"]:
    """Return the cosines along an axis of ``size`` pixels, weighted by the Gaussian.

    The squares of the weights add up to 1.
    """
    wave, pixel = np.arange(_NUM_WAVES), np.arange(size)[:, None]
    weights = np.exp(-0.5 * (np.pi * wave * ELASTIC_SMOOTHNESS / size) ** 2)
    cosines = np.where(wave > 0, np.sqrt(2), 1.0) * np.cos(np.pi * wave * (pixel + 0.5) / size)
    return (cosines * weights / np.sqrt((weights**2).sum())).astype(np.float32)


def annealed(strengths: Hyperparameters, progress: Float[Array, ""]) -> Hyperparameters:
    """Reduce the strengths of the augmentation towards the end of a run.

    Args:
        strengths: Those named in ``STRENGTHS``, and ``anneal_fraction``, are used.
        progress: The number of steps taken, as a fraction of the steps of the whole run.

    Returns:
        The strengths times ``min(1, (1 - progress) / anneal_fraction)``; unchanged if that fraction is 0.
    """
    left = (1 - progress) / jnp.where(strengths.anneal_fraction > 0, strengths.anneal_fraction, 1.0)
    factor = jnp.where(strengths.anneal_fraction > 0, jnp.minimum(1.0, left), 1.0)
    return strengths._replace(**{name: factor * getattr(strengths, name) for name in STRENGTHS})


def _source(
    matrix: tuple[tuple[Float32[Array, " batch"], ...], ...],
    shift: tuple[Float32[Array, " batch"], ...],
    noise: Float32[Array, "2 waves_squared batch"],
    height: int,
    width: int,
) -> Float32[Array, "2 {height} {width} batch"]:
    """Compute where every output pixel is read: ``matrix @ (pixel - centre - shift) + centre + displacement``.

    All of this is linear in fixed functions of the pixel, and so it is one matrix product. XLA:CPU would compute
    element-wise formulas again for each operation that reads them. ``matrix``, ``shift`` and the result are of y and x;
    ``noise`` comes from ``elastic_noise``.
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


def _resample(images: UInt8[Array, "batch height width 1"], source: Float32[Array, "2 height width batch"]) -> Images:
    """Read every output pixel at its source by bilinear interpolation; pixels outside an image are 0.

    The four neighbours of a pixel are packed into one 32-bit word, so that a pixel costs one gather instead of four.
    """
    _, height, width, _ = images.shape
    table = _pack_neighbours(images[..., 0].transpose(1, 2, 0))
    # One pixel outside the image and farther, all that is read is zero; the clip keeps the gather inside the table.
    source_y, source_x = jnp.clip(source[0], -1, height) + 1, jnp.clip(source[1], -1, width) + 1
    row, column = jnp.floor(source_y), jnp.floor(source_x)
    index = (row * (width + 2) + column).astype(jnp.int32).reshape(height * width, -1)
    packed = jnp.take_along_axis(table, index, axis=0, mode="promise_in_bounds").reshape(row.shape)
    down, right = source_y - row, source_x - column
    a, b, c, d = (((packed >> bits) & 255).astype(jnp.int32).astype(jnp.float32) for bits in (0, 8, 16, 24))
    top, bottom = a + right * (b - a), c + right * (d - c)
    return (top + down * (bottom - top)).transpose(2, 0, 1)[..., None]


def _pack_neighbours(images: UInt8[Array, "height width batch"]) -> UInt32[Array, "(height+2)*(width+2) batch"]:
    """Pack each pixel with its neighbours to the right, below, and below to the right.

    The table begins one pixel before the image in both directions and ends one after it.
    """
    height, width, batch = images.shape
    padded = jnp.pad(images, ((1, 2), (1, 2), (0, 0))).astype(jnp.uint32)
    corners = [padded[i : i + height + 2, j : j + width + 2] for i in (0, 1) for j in (0, 1)]
    packed = corners[0] | corners[1] << 8 | corners[2] << 16 | corners[3] << 24
    return packed.reshape(-1, batch)
