"""A trained network as one object: loaded from a file of weights, it makes predictions for arrays of images."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jax_s6 import backend
from jax_s6.config import ModelConfig
from jax_s6.errors import InputError
from jax_s6.network import net, weights

DEFAULT_MODEL = Path(__file__).parent / "_model" / "params.safetensors"
"""The network that ships with the package; the JSON file beside it tells how it was trained."""
PARAMS_FILE = "params.safetensors"
NUM_LABELS = 10
"""Labels use the first ten outputs, since all data sets have ten classes."""
_BATCH_SIZES = (1, 8, 64, 512)  # few, because each is compiled separately
_FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_KMNIST = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_CLASS_NAMES = {"fashion_mnist": _FASHION, "kmnist": _KMNIST}
_NUMBERS = tuple(str(output) for output in range(net.NUM_OUTPUTS))


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network.

    Attributes:
        variables: ``{"params": ..., "batch_stats": ...}``, float32 arrays.
        class_names: The names of the 16 outputs: the digits, or the classes of the data set; the outputs that no label
            uses are named by their numbers.
        source: The file of the weights, for titles.
    """

    variables: dict[str, Any]
    class_names: tuple[str, ...] = _NUMBERS
    source: str = ""

    def logits(self, images: Any) -> np.ndarray:
        """Compute the inputs of the log-softmax.

        Args:
            images: uint8 or floating, in ``[0, 255]``, light on dark as MNIST: ``[n, 28, 28, 1]``, ``[n, 28, 28]``, or
                one image ``[28, 28]``.

        Returns:
            float32 ``[n, 16]``.

        Raises:
            InputError: The array has another shape or type, or values out of range, or all values are in [0, 1].
        """
        images, most = _check_images(images), _BATCH_SIZES[-1]
        parts = [self._batch(images[start : start + most]) for start in range(0, len(images), most)]
        return np.concatenate(parts) if parts else np.zeros((0, net.NUM_OUTPUTS), np.float32)

    def predict(self, images: Any) -> np.ndarray:
        """Return the most probable output for each image: int32 ``[n]``, for images as ``logits`` takes them."""
        return self.logits(images).argmax(1).astype(np.int32)

    def predict_proba(self, images: Any) -> np.ndarray:
        """Return the probabilities of the 16 outputs: float32 ``[n, 16]``, for images as ``logits`` takes them."""
        return np.array(jax.nn.softmax(self.logits(images)))

    def _batch(self, images: np.ndarray) -> np.ndarray:
        """Compute one batch, padded to the next larger of a few sizes."""
        count = len(images)
        padded = np.zeros((min(size for size in _BATCH_SIZES if size >= count), *images.shape[1:]), images.dtype)
        padded[:count] = images
        return np.asarray(self._apply(padded))[:count]

    @functools.cached_property
    def _apply(self) -> Callable[[Any], jax.Array]:
        return make_apply(self.variables)


def make_apply(variables: Mapping[str, Any], config: ModelConfig | None = None) -> Callable[[Any], jax.Array]:
    """Make a compiled function that evaluates the network.

    The weights are constants of the program, because passing 36 arrays takes as long as evaluating one image. On CPU, a
    large batch is evaluated in parts, whose activations stay in the cache: this is five times as fast as all at once.
    The parts are shared equally between devices.

    Args:
        variables: ``{"params": ..., "batch_stats": ...}``.
        config: The convolution and the precision; the platform's defaults if None.

    Returns:
        A function from images, uint8 or float32 ``[n, 28, 28, 1]`` in ``[0, 255]``, to logits, float32 ``[n, 16]``; n
        is at most 64 or a multiple of 64.
    """
    arrays = jax.tree.map(jnp.asarray, dict(variables))
    apply: Any = functools.partial(net.create(config or ModelConfig()).apply, arrays)

    @jax.jit
    def apply_in_parts(images: jax.Array) -> jax.Array:
        part = backend.prediction_chunk(len(images))
        parts = images.reshape(-1, part, *images.shape[1:])
        if len(parts) == 1:
            return apply(images)
        mesh, split = Mesh(np.array(backend.prediction_devices(len(parts))), ("device",)), P("device")
        shared = jax.shard_map(lambda parts: jax.lax.map(apply, parts), mesh=mesh, in_specs=split, out_specs=split)
        return shared(parts).reshape(-1, net.NUM_OUTPUTS)

    return apply_in_parts


def _check_images(images: Any) -> np.ndarray:
    """Return the images as uint8 or float32 ``[n, 28, 28, 1]``, or raise InputError."""
    images = np.asarray(images)
    if images.ndim == 2:
        images = images[None]
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1:] != (28, 28, 1):
        raise InputError(f"images must have the shape [n, 28, 28, 1], [n, 28, 28] or [28, 28], got {images.shape}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "fiu":
        raise InputError(f"images must be uint8 or floating numbers in [0, 255], got {images.dtype}")
    if images.size and not (images.min() >= 0 and images.max() <= 255):  # false for NaN as well
        raise InputError(f"images must be in [0, 255], got {images.min():g} to {images.max():g}")
    if images.size and images.dtype.kind == "f" and 0 < images.max() <= 1:
        raise InputError("images must be in [0, 255], but seem to be in [0, 1]: multiply them by 255")
    return images.astype(np.float32)


def load_model(run: str | Path | None = None) -> Model:
    """Load a trained network.

    Args:
        run: A run's folder, a ``params.safetensors``, a PyTorch state dict of the reference's ``Net`` in safetensors,
            or None for the network that ships with the package.

    Returns:
        The network; ``load_model(run).predict(images)`` returns its predictions.

    Raises:
        InputError: There is no such file, or it does not hold this network.
    """
    file = weights_file(run)
    if not file.is_file():
        what = f"{run} has no {PARAMS_FILE}" if Path(str(run)).expanduser().is_dir() else f"{file} does not exist"
        raise InputError(f"run {what}: give the folder of a finished run, or a safetensors file")
    variables = weights.load(file)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)):
        raise InputError(f"run {file} has weights that are not finite, because training diverged: give another run")
    names = _CLASS_NAMES.get(_dataset_of(file), ())
    return Model(variables, names + _NUMBERS[len(names) :], str(file))


def weights_file(run: str | Path | None = None) -> Path:
    """Return the file of weights that ``load_model`` reads; it need not exist."""
    path = DEFAULT_MODEL if run is None else Path(run).expanduser()
    return path / PARAMS_FILE if path.is_dir() else path


def _dataset_of(file: Path) -> str:
    """Read the data set's name from the run's settings beside the weights; mnist if there are none."""
    try:
        return str(json.loads((file.parent / "config.json").read_text(encoding="utf-8"))["data"]["dataset"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "mnist"
