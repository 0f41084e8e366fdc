"""What the tests of prediction share: the network that ships with the package, MNIST's test images, and pictures."""

import numpy as np
import pytest
from PIL import Image

from jax_s6.config import DataConfig
from jax_s6.data import EMBEDDED, load
from jax_s6.predict import load_model


@pytest.fixture(scope="session")
def mnist():
    """The test images, uint8 [10000, 28, 28], and their labels."""
    dataset = load(DataConfig(data_dir=EMBEDDED))
    return dataset.test_images[..., 0], dataset.test_labels


@pytest.fixture(scope="session")
def network():
    return load_model()


def enlarge(image, side=200, padding=((30, 80), (110, 20))):
    """A picture of another size with the digit off its centre: float32 in [0, 1], light on dark."""
    return np.pad(np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)) / 255.0, padding)


def to_png(path, grey):
    Image.fromarray(np.round(255 * np.asarray(grey)).astype(np.uint8)).save(path)
    return path
