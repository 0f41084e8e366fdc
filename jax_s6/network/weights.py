"""Trained weights as files and as PyTorch's names. Arrays only: nothing that could run code is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import DTypeLike
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as save_bytes

from jax_s6.errors import InputError
from jax_s6.network import net as model

# The reference's blocks are nn.Sequential(Conv2d, ReLU, BatchNorm2d, Conv2d, ReLU, BatchNorm2d, ...).
_TORCH_INDEX = {"conv_0": 0, "norm_0": 2, "conv_1": 3, "norm_1": 5}
_TORCH_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def _template() -> dict[str, Any]:
    """The shapes of the network's variables."""
    return jax.eval_shape(model.init, jax.random.key(0))


def _path_names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """A leaf's names from the root: ``("params", "conv1", "conv_0", "kernel")``."""
    return tuple(entry.key for entry in path)


def save(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Writes ``params`` and ``batch_stats`` as safetensors, with names such as ``params.conv1.conv_0.kernel``.

    Raises:
        OSError: The file cannot be written.
    """
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    write(path, {".".join(_path_names(p)): np.asarray(x) for p, x in leaves}, metadata)


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes arrays by name as safetensors, the metadata sorted: the same run leaves the same bytes.

    Raises:
        OSError: The file cannot be written.
    """
    content = save_bytes(dict(arrays), metadata=dict(metadata or {}))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    path.write_bytes(content[:8] + text.ljust(size) + content[8 + size :])


def load(path: Path) -> dict[str, Any]:
    """Reads what ``save`` wrote, or a PyTorch state dict of the reference's ``Net`` in safetensors.

    Returns:
        ``{"params": ..., "batch_stats": ...}``, float32 NumPy arrays.

    Raises:
        InputError: The file cannot be read, is not safetensors, or does not hold this network.
    """
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors ({error}): give a params.safetensors of a run"
        ) from None
    if "conv1.0.weight" in arrays:
        return from_torch_state_dict(arrays)
    return _fill(lambda names: ".".join(names), arrays, str(path))


def from_torch_state_dict(state_dict: Mapping[str, Any], dtype: DTypeLike = np.float32) -> dict[str, Any]:
    """Converts the state dict of the reference's PyTorch ``Net``.

    Args:
        state_dict: Arrays (NumPy, or CPU tensors) by PyTorch's names: ``conv1.0.weight`` ``[O, C, 3, 3]`` ...
        dtype: Of the result.

    Returns:
        ``{"params": ..., "batch_stats": ...}``, NumPy arrays, copies, that give the same predictions.

    Raises:
        InputError: A name is missing, or has another shape or type, or a variance is negative.
    """
    arrays = {
        name: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        for name, array in ((name, np.asarray(value)) for name, value in state_dict.items())
    }
    return _fill(_torch_name, arrays, "the state dict", dtype)


def to_torch_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts ``{"params": ..., "batch_stats": ...}`` to a state dict for the reference's PyTorch ``Net``.

    ``num_batches_tracked``, which PyTorch does not use with a momentum, is left out: load with ``strict=False``, or
    add zeros.
    """
    state_dict = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        array = np.asarray(leaf)
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        state_dict[_torch_name(_path_names(path))] = np.ascontiguousarray(array)
    return state_dict


def _torch_name(names: tuple[str, ...]) -> str:
    collection, block, layer, leaf = names
    return f"{block}.{_TORCH_INDEX[layer]}.{_TORCH_NAMES[collection, leaf]}"


def _fill(name_of: Any, arrays: Mapping[str, np.ndarray], source: str, dtype: DTypeLike = np.float32) -> dict[str, Any]:
    """Takes each of the network's variables from ``arrays`` by name, checking its shape."""

    def leaf(path: tuple[Any, ...], expected: jax.ShapeDtypeStruct) -> np.ndarray:
        name = name_of(_path_names(path))
        if name not in arrays:
            raise InputError(f"{source} has no {name}: it is not of this network (11,952 parameters, conv1 to conv3)")
        if arrays[name].shape != expected.shape:
            raise InputError(f"{name} in {source} must have the shape {expected.shape}, got {arrays[name].shape}")
        if not jax.numpy.issubdtype(arrays[name].dtype, np.floating):  # bfloat16 is, for JAX
            raise InputError(f"{name} in {source} must be floating numbers, got {arrays[name].dtype}")
        if path[-1].key == "var" and (arrays[name] < 0).any():
            raise InputError(f"{name} in {source} must be >= 0: it is damaged, so give a params.safetensors of a run")
        return np.array(arrays[name], dtype)  # a copy: a PyTorch tensor's array would change as it trains

    return jax.tree_util.tree_map_with_path(leaf, _template())
