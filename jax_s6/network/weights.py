"""The network's variables as files, and under PyTorch's names. A file is read as arrays only, so it can run no code."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import DTypeLike
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as save_bytes

from jax_s6.errors import InputError
from jax_s6.network.net import init

# A block of the reference is nn.Sequential(Conv2d, ReLU, BatchNorm2d, Conv2d, ReLU, BatchNorm2d, ...).
_TORCH_INDEX = {"conv_0": 0, "norm_0": 2, "conv_1": 3, "norm_1": 5}
_TORCH_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


@functools.cache
def _shapes() -> dict[str, Any]:
    """Return the shapes of the network's variables."""
    return jax.eval_shape(init, jax.random.key(0))


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Return a leaf's names from the root: ``("params", "conv1", "conv_0", "kernel")``."""
    return tuple(entry.key for entry in path)


def save(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``params`` and ``batch_stats`` as safetensors, with names such as ``params.conv1.conv_0.kernel``.

    Raises:
        OSError: The file cannot be written.
    """
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    write(path, {".".join(_names(p)): np.asarray(x) for p, x in leaves}, metadata)


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays as safetensors, with sorted metadata, so that the same run writes the same bytes.

    Raises:
        OSError: The file cannot be written.
    """
    # safetensors ignores strides; np.ascontiguousarray would give scalars a dimension
    content = save_bytes({k: np.asarray(x, order="C") for k, x in arrays.items()}, metadata=dict(metadata or {}))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    path.write_bytes(content[:8] + text.ljust(size) + content[8 + size :])


def load(path: Path) -> dict[str, Any]:
    """Read a file that ``save`` wrote, or a safetensors file with the state dict of the reference's PyTorch ``Net``.

    Returns:
        ``{"params": ..., "batch_stats": ...}``, float32 NumPy arrays.

    Raises:
        InputError: The file cannot be read, is not safetensors, or does not hold this network.
    """
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}): give a run's params.safetensors") from None
    if "conv1.0.weight" in arrays:
        return from_torch_state_dict(arrays)
    return _select(".".join, arrays, str(path))


def from_torch_state_dict(state_dict: Mapping[str, Any], dtype: DTypeLike = np.float32) -> dict[str, Any]:
    """Convert the state dict of the reference's PyTorch ``Net``.

    Args:
        state_dict: Arrays (NumPy, or CPU tensors) by PyTorch's names: ``conv1.0.weight`` ``[O, C, 3, 3]`` ...
        dtype: The type of the result.

    Returns:
        ``{"params": ..., "batch_stats": ...}``, copies as NumPy arrays, which give the same predictions.

    Raises:
        InputError: A name is missing, or its array has another shape or type, or a variance is negative.
    """
    arrays = {name: np.asarray(value) for name, value in state_dict.items()}
    arrays = {name: x.transpose(2, 3, 1, 0) if x.ndim == 4 else x for name, x in arrays.items()}
    return _select(_torch_name, arrays, "the state dict", dtype)


def to_torch_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert ``{"params": ..., "batch_stats": ...}`` to a state dict for the reference's PyTorch ``Net``.

    It lacks ``num_batches_tracked``, which PyTorch does not use with a momentum: load it with ``strict=False``, or add
    zeros.
    """
    state_dict = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        array = np.asarray(leaf)
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        state_dict[_torch_name(_names(path))] = np.ascontiguousarray(array)
    return state_dict


def _torch_name(names: tuple[str, ...]) -> str:
    collection, block, layer, leaf = names
    return f"{block}.{_TORCH_INDEX[layer]}.{_TORCH_NAMES[collection, leaf]}"


def _select(name_of: Callable, arrays: Mapping[str, np.ndarray], source: str, dtype: DTypeLike = np.float32) -> dict:
    """Take each of the network's variables from ``arrays`` by its name, and check its shape, type and sign."""

    def leaf(path: tuple[Any, ...], expected: jax.ShapeDtypeStruct) -> np.ndarray:
        name = name_of(_names(path))
        if name not in arrays:
            raise InputError(f"{source} has no {name}: it is not of this network (11,952 parameters, conv1 to conv3)")
        array = arrays[name]
        if array.shape != expected.shape:
            raise InputError(f"{name} in {source} must have the shape {expected.shape}, got {array.shape}")
        if not jax.numpy.issubdtype(array.dtype, np.floating):  # JAX counts bfloat16 in, NumPy does not
            raise InputError(f"{name} in {source} must hold floating-point numbers, got {array.dtype}")
        if path[-1].key == "var" and (array < 0).any():
            raise InputError(f"{name} in {source} must be >= 0: it is damaged, so give a params.safetensors of a run")
        return np.array(array, dtype)  # a copy: a PyTorch tensor's array would change as it trains

    return jax.tree_util.tree_map_with_path(leaf, _shapes())
