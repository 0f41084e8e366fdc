"""Any picture of a digit becomes an image as in MNIST, or one sentence says why not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_s6.errors import InputError
from jax_s6.predict.digit import to_digit
from tests.predict.conftest import enlarge


def photograph(image, seed):
    """Dark ink on grey paper in slanting light, with grain."""
    rng, digit = np.random.default_rng(seed), enlarge(image)
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in digit.shape), indexing="ij")
    light = 0.85 - 0.35 * rng.random() * x - 0.25 * rng.random() * y
    return np.clip(light * (1 - 0.7 * digit) + rng.normal(0, 0.03, digit.shape), 0, 1)


def test_an_image_of_mnist_is_returned_nearly_unchanged(mnist):
    # MNIST's own preprocessing, applied to its result, changes almost nothing, whether the ink is light or dark.
    for image in mnist[0][:40]:
        for grey in (image / np.float32(255), 1 - image / np.float32(255)):
            assert np.abs(to_digit(grey).astype(int) - image).mean() < 4


@pytest.mark.parametrize("make", [lambda i, _: enlarge(i), lambda i, _: 1 - enlarge(i), photograph])
def test_pictures_of_digits_get_the_predictions_of_the_digits(make, network, mnist):
    images = mnist[0][:60]
    found = np.stack([to_digit(make(i, k).astype(np.float32)) for k, i in enumerate(images)])
    assert (network.predict(found) == network.predict(images)).mean() >= 0.98


def test_thin_strokes_are_widened_to_mnists(network):
    picture = np.ones((600, 600), np.float32)
    picture[100:500, 300:302] = 0  # a 1 that would be 0.1 pixels wide when scaled down
    digit = to_digit(picture)
    assert digit.max() > 200 and network.predict(digit)[0] == 1


def test_specks_do_not_move_the_digit(mnist):
    picture = enlarge(mnist[0][0]).astype(np.float32)
    dirty = picture.copy()
    dirty[2:6, 2:6] = 1
    np.testing.assert_allclose(to_digit(dirty), to_digit(picture).astype(int), atol=2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (300, 200)])
def test_blank_pictures_are_refused(shape):
    for level in (0.0, 0.5, 1.0):
        with pytest.raises(InputError, match="no digit stands out"):
            to_digit(np.full(shape, level, np.float32))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.sampled_from([2, 3, 256]))
def test_any_picture_gives_a_centred_digit_or_a_sentence(height, width, seed, levels):
    grey = np.random.default_rng(seed).integers(0, levels, (height, width)) / np.float32(levels - 1)
    try:
        digit = to_digit(grey.astype(np.float32))
    except InputError:
        return
    assert digit.shape == (28, 28) and digit.dtype == np.uint8 and digit.max() > 0
    rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
    assert rows[-1] - rows[0] < 20 and columns[-1] - columns[0] < 20
