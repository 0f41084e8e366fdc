"""The random transformations against closed forms in NumPy: identity, whole shifts, and what a rotation does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6.config import RECIPES, Hyperparameters
from jax_s6.training import augmentation

IDENTITY = ((1.0, 0.0), (0.0, 1.0))
augment = jax.jit(augmentation.augment)


def images(count=4):
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), np.uint8)


def strengths(**values):
    return Hyperparameters(**{name: np.float32(values.get(name, 0)) for name in Hyperparameters._fields})


def keys(count=4, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@jax.jit
def resample(images, matrix, shift):
    """Reads all images at ``matrix @ (pixel - centre - shift) + centre``."""
    matrix, shift = jax.tree.map(lambda value: jnp.full(len(images), value), (matrix, shift))
    noise = jnp.zeros_like(augmentation.elastic_noise(keys(len(images))))
    return augmentation._resample(images, augmentation._source(matrix, shift, noise, 28, 28))


def warp(images, matrix, shift):
    floats = jax.tree.map(np.float32, (tuple(map(tuple, matrix)), tuple(shift)))
    return np.asarray(resample(images, *floats))


def test_elastic_displacement_is_white_noise_under_a_gaussian():
    @jax.jit
    def sources(keys):
        zero = jnp.zeros(len(keys))
        return augmentation._source(((zero,) * 2,) * 2, (zero,) * 2, augmentation.elastic_noise(keys), 28, 28)

    field = np.asarray(sources(keys(4000))) - 13.5
    assert field.mean() == pytest.approx(0, abs=0.02) and (field**2).mean() == pytest.approx(1, abs=0.03)
    assert abs((field[0] * field[1]).mean()) < 0.02, "x and y must be independent"
    # Far from the edges, the correlation of Gaussian-smoothed noise at distance d is exp(-d^2 / (4 sigma^2)).
    middle = field[:, 14, 8]
    for distance in (2, 4, 8):
        correlation = (middle * field[:, 14, 8 + distance]).mean() / (middle**2).mean()
        assert correlation == pytest.approx(np.exp(-(distance**2) / (4 * augmentation.ELASTIC_SMOOTHNESS**2)), abs=0.12)


def test_annealing_falls_to_nothing_over_the_last_share_of_a_run():
    hyper = Hyperparameters.of(RECIPES["best"])._replace(rotation=10.0, shift=2.0, anneal_fraction=0.25)
    annealed = jax.jit(augmentation.annealed)
    for progress, factor in ((0.0, 1.0), (0.75, 1.0), (0.875, 0.5), (1.0, 0.0)):
        got = annealed(hyper, progress)
        assert got.rotation == pytest.approx(10 * factor) and got.shift == pytest.approx(2 * factor)
        assert got.learning_rate == jnp.float32(hyper.learning_rate)
    never = annealed(hyper._replace(anneal_fraction=0.0), 1.0)
    assert never.rotation == 10


def test_zero_strength_is_the_identity():
    np.testing.assert_array_equal(augment(keys(), images(), strengths()), images().astype(np.float32))


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -2), (3, 5), (-27, 0), (40, 40)])
def test_whole_shift_moves_pixels_and_fills_with_zero(down, right):
    source = images().astype(np.float32)
    want = np.zeros_like(source)
    for i in range(28):
        for j in range(28):
            if 0 <= i - down < 28 and 0 <= j - right < 28:
                want[:, i, j] = source[:, i - down, j - right]
    np.testing.assert_array_equal(warp(images(), IDENTITY, (down, right)), want)


def test_half_shift_is_the_mean_of_two_neighbours():
    source = images().astype(np.float32)[..., 0]
    want = 0.5 * source + 0.5 * np.pad(source, ((0, 0), (0, 0), (1, 0)))[:, :, :28]
    np.testing.assert_allclose(warp(images(), IDENTITY, (0, 0.5))[..., 0], want, atol=1e-4)


def test_quarter_turn_is_numpys():
    source = images().astype(np.float32)[..., 0]
    turned = warp(images(), ((0.0, 1.0), (-1.0, 0.0)), (0, 0))[..., 0]
    np.testing.assert_allclose(turned, np.rot90(source, 1, (1, 2)), atol=1e-2)


def test_warp_agrees_with_bilinear_interpolation_at_random_matrices():
    rng = np.random.default_rng(0)
    source = images().astype(np.float64)[0, :, :, 0]
    padded = np.pad(source, 40)
    for _ in range(5):
        matrix, shift = np.eye(2) + 0.2 * rng.normal(size=(2, 2)), 3 * rng.normal(size=2)
        want = np.zeros((28, 28))
        for i, j in np.ndindex(28, 28):
            y, x = matrix @ (np.array([i, j]) - 13.5 - shift) + 13.5
            row, column = int(np.floor(y)), int(np.floor(x))
            a, b = y - row, x - column
            block = padded[row + 40 : row + 42, column + 40 : column + 42]
            want[i, j] = np.array([1 - a, a]) @ block @ np.array([1 - b, b])
        got = warp(images(), matrix, shift)[0, :, :, 0]
        np.testing.assert_allclose(got, want, atol=0.05)


@pytest.mark.parametrize("strength", [dict(rotation=10.0), dict(shift=2.0), dict(scale=0.1), dict(shear=10.0)])
def test_each_strength_changes_every_image_differently(strength):
    same = np.tile(images(1), (4, 1, 1, 1))
    warped = np.asarray(augment(keys(), same, strengths(**strength)))
    assert all(not np.array_equal(warped[i], warped[j]) for i in range(4) for j in range(i))
    assert all(not np.array_equal(warped[i], same[i]) for i in range(4))
    assert 0 <= warped.min() and warped.max() <= 255


def test_an_images_warp_depends_on_its_key_alone():
    everything = strengths(rotation=10.0, shift=2.0, scale=0.1, shear=5.0)
    whole = augment(keys(), images(), everything)
    np.testing.assert_allclose(augment(keys()[2:3], images()[2:3], everything)[0], whole[2], atol=1e-3)


def test_rotation_keeps_a_centred_disc():
    y, x = np.mgrid[:28, :28] - 13.5
    disc = (255 * np.clip(9 - np.hypot(y, x), 0, 1)).astype(np.uint8)[None, :, :, None]
    turned = np.asarray(augment(keys(1), disc, strengths(rotation=180.0)))
    assert np.abs(turned - disc.astype(np.float32)).mean() < 3
