"""What every arm is given: the same digits, the same weights, the same rate. NumPy only."""

import numpy as np

LEARNING_RATE, MOMENTUM = 0.01, 0.9
MEAN, STD = 0.1307, 0.3081
IN_CHANNELS = {"conv1.0": 1, "conv1.3": 16, "conv2.0": 16, "conv2.3": 16, "conv3.0": 16, "conv3.3": 16}


def steps(batch: int, platform: str) -> int:
    """Steps of an epoch of one network: fewer on CPU, where an epoch of all images takes seconds."""
    return max(8, 4096 // batch) if platform == "cpu" else 60_000 // batch


def images_a_lane(lanes: int, batch: int, platform: str) -> int:
    """An epoch's images: enough for steps to outweigh what comes between epochs, and for a sample of seconds."""
    if platform != "cpu":
        return 64 * batch
    return max(4 * batch, min(64 * batch, 64 * batch * 16 // lanes // batch * batch))


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first training images: uint8 ``[count, 28, 28, 1]`` and int32 ``[count]``, again where too few."""
    from jax_s6.config import DataConfig
    from jax_s6.data import dataset as data

    dataset = data.load(DataConfig(data_dir=data.EMBEDDED))
    return np.resize(dataset.train_images, (count, 28, 28, 1)), np.resize(dataset.train_labels, count)


def normalised(images: np.ndarray) -> np.ndarray:
    """Returns what peers are given, ready: float32 ``[n, 28, 28, 1]``. Ours do this within the step."""
    return ((images.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def state_dict() -> dict[str, np.ndarray]:
    """Draws the weights that every arm's loss is compared with, by PyTorch's names and in its layout."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for name, channels in IN_CHANNELS.items():
        bound = (9 * channels) ** -0.5
        arrays[f"{name}.weight"] = rng.uniform(-bound, bound, (16, channels, 3, 3)).astype(np.float32)
        arrays[f"{name}.bias"] = rng.uniform(-bound, bound, 16).astype(np.float32)
        norm = f"{name[:-1]}{int(name[-1]) + 2}"
        arrays[f"{norm}.weight"] = rng.uniform(0.5, 1.5, 16).astype(np.float32)
        arrays[f"{norm}.bias"] = rng.uniform(-0.5, 0.5, 16).astype(np.float32)
        arrays[f"{norm}.running_mean"] = np.zeros(16, np.float32)
        arrays[f"{norm}.running_var"] = np.ones(16, np.float32)
    return arrays
