"""What every arm is given: the same images, initial weights and learning rate. Imports no framework."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LEARNING_RATE, MOMENTUM = 0.01, 0.9
MEAN, STD = 0.1307, 0.3081


class Layer(NamedTuple):
    """A 3x3 convolution to 16 channels, then a ReLU, batch normalisation, and max-pooling by 2 if ``pool``."""

    name: str
    norm: str
    in_channels: int
    stride: int
    pool: bool


LAYERS = tuple(
    Layer(
        f"conv{block}.{i}",
        f"conv{block}.{i + 2}",
        1 if (block, i) == (1, 0) else 16,
        2 if i else 1,
        i > 0 and block < 3,
    )
    for block in (1, 2, 3)
    for i in (0, 3)
)
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def steps(batch: int, platform: str) -> int:
    """Return the number of steps in an epoch of one network: fewer on CPU, where all images would take seconds."""
    return max(8, 4096 // batch) if platform == "cpu" else 60_000 // batch


def images_per_lane(lanes: int, batch: int, platform: str) -> int:
    """Return the number of images in an epoch of a sweep.

    There are enough for the steps to outweigh what happens between epochs, and few enough for samples of seconds.
    """
    if platform != "cpu":
        return 64 * batch
    return max(4 * batch, min(64 * batch, 64 * batch * 16 // lanes // batch * batch))


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first training images, uint8 ``[count, 28, 28, 1]``, and their labels, int32 ``[count]``.

    They are repeated if there are too few.
    """
    from jax_s6 import data
    from jax_s6.config import DataConfig

    dataset = data.load(DataConfig(data_dir=data.EMBEDDED))
    return np.resize(dataset.train_images, (count, 28, 28, 1)), np.resize(dataset.train_labels, count)


def normalised(images: np.ndarray) -> np.ndarray:
    """Return normalised images as the peers are given them: float32. Our arms normalise within the step."""
    return ((images.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def state_dict() -> dict[str, np.ndarray]:
    """Return the initial weights for the check of the losses, with PyTorch's names and shapes."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for layer in LAYERS:
        bound = (9 * layer.in_channels) ** -0.5
        shapes = {"weight": (16, layer.in_channels, 3, 3), "bias": 16}
        arrays |= {f"{layer.name}.{k}": rng.uniform(-bound, bound, v).astype(np.float32) for k, v in shapes.items()}
        scale, shift = rng.uniform(0.5, 1.5, 16), rng.uniform(-0.5, 0.5, 16)
        values = zip(NORM_PARTS, (scale, shift, np.zeros(16), np.ones(16)), strict=True)
        arrays |= {f"{layer.norm}.{part}": value.astype(np.float32) for part, value in values}
    return arrays


def num_params() -> int:
    """Return the number of parameters in ``state_dict``."""
    return sum(array.size for name, array in state_dict().items() if "running" not in name)


def loss_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean cross-entropy over the 16 outputs, in float64."""
    logits = np.asarray(logits, np.float64)
    highest = logits.max(1, keepdims=True)
    log_sum = highest[:, 0] + np.log(np.exp(logits - highest).sum(1))
    return float((log_sum - logits[np.arange(len(labels)), labels]).mean())


def two_losses(step: Callable[[], Any]) -> tuple[list[float], float]:
    """Take two steps; return their losses, and how many seconds longer the first took, which is compilation."""
    losses, times = [], [time.perf_counter()]
    for _ in range(2):
        losses.append(float(step()))
        times.append(time.perf_counter())
    return losses, max(0.0, times[1] - times[0] - (times[2] - times[1]))


def furthest_from_median(losses: np.ndarray) -> float:
    """Return the loss of the lane that differs most from the others: if it passes the check, all do."""
    return float(losses[np.argmax(np.abs(losses - np.median(losses)))])
