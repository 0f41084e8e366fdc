"""The formats that a network can be exported to: how each is written, read back and verified."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from jax_s6.config import ModelConfig
from jax_s6.errors import InputError
from jax_s6.export.card import card_path, make_card
from jax_s6.export.onnx import to_onnx
from jax_s6.network import net, weights
from jax_s6.predict.model import Model
from jax_s6.runs.files import replacing, write_json

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5
"""Largest allowed difference of an image's logits, divided by max(1, the image's largest logit)."""
Format = Literal["stablehlo", "onnx", "safetensors", "torch"]
_BATCH = 2_498  # the verification's batches of 10,000 images are 1, 7 and four of these: the size must not be fixed
Run = Callable[[np.ndarray], np.ndarray]
"""A function from images to logits, as ``Model.logits``."""


class FileFormat(NamedTuple):
    """One format: the usual name of its file, and the functions that write it and that read it back as a ``Run``."""

    file_name: str
    write: Callable[[Path, Mapping[str, Any], Mapping[str, str]], None]
    read: Callable[[Path], Run]


def export(
    network: Model, kind: Format, out: Path, images: np.ndarray, provenance: Mapping[str, Any] | None = None
) -> float:
    """Write a network's file, verify it by reading it back and running it, and describe it in ``out``'s JSON card.

    Args:
        network: The network to write.
        kind: The format.
        out: The file; nothing is left there if the verification fails.
        images: uint8 ``[n, 28, 28, 1]``, the images to verify on.
        provenance: How the network was trained, for the card.

    Returns:
        The largest difference between the file's and the network's logits, as ``TOLERANCE`` defines it.

    Raises:
        InputError: The format is unknown, a package is missing, or the file cannot be written.
        RuntimeError: The written file does not compute what the network does.
    """
    if kind not in FORMATS:
        raise InputError(f"kind must be one of {', '.join(FORMATS)}, got {kind!r}")
    provenance, file_format = dict(provenance or {}), FORMATS[kind]
    with replacing(out) as part:
        file_format.write(part, network.variables, {name: str(value) for name, value in provenance.items()})
        difference = _compare(file_format.read(part), network, images)
        if not difference <= TOLERANCE:  # so that NaN is refused
            raise RuntimeError(f"the {kind} file's logits differ by {difference:.3g} from the network's: nothing kept")
        card = make_card(part, provenance, kind, {"images": len(images), "largest_difference": difference})
    write_json(card_path(out), card)
    return difference


def _compare(run: Run, network: Model, images: np.ndarray) -> float:
    """Return the largest difference of the logits, computed in batches of several sizes; NaN for another shape."""
    parts = np.split(images, [1, 8, *range(8 + _BATCH, len(images), _BATCH)])
    got, expected = np.concatenate([run(part) for part in parts if len(part)]), network.logits(images)
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return float("nan")
    return float((np.abs(got - expected) / np.maximum(1, np.abs(expected).max(1, keepdims=True))).max())


def _write_stablehlo(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Lower the network, including its weights, for CPU, CUDA and TPU, with a symbolic batch size."""
    module = net.create(ModelConfig(convolution="xla", precision="float32"))

    def logits(images: jax.Array) -> Any:
        return module.apply(jax.tree.map(jnp.asarray, dict(variables)), images)

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 28, 28, 1), jnp.uint8)
    path.write_bytes(jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images).serialize())


def _read_stablehlo(path: Path) -> Run:
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == PLATFORMS, exported.platforms
    return lambda images: np.asarray(exported.call(images))


def _write_onnx(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    path.write_bytes(to_onnx(variables, metadata).SerializeToString())


def _read_onnx(path: Path) -> Run:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("format onnx is verified with onnxruntime: pip install 'jax-s6[onnx]'") from None
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["logits"], {"images": images})[0])


def _write_torch(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    state_dict = weights.to_torch_state_dict(variables)
    # PyTorch counts batches. With its default momentum it does not use the count, but a strict load requires it.
    norms = [name.removesuffix(".running_mean") for name in state_dict if name.endswith(".running_mean")]
    state_dict |= {f"{norm}.num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    weights.write(path, state_dict, {**metadata, "format": "pt"})


def _read_torch(path: Path) -> Run:
    names = load_file(path).keys()
    assert len(names) == 6 * 7, names  # weight and bias of convolution and norm, two statistics and the count
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> Run:
    """Read weights with this package's or PyTorch's names back into the network."""
    return Model(weights.load(path)).logits


FORMATS: dict[Format, FileFormat] = {
    "stablehlo": FileFormat("model.stablehlo", _write_stablehlo, _read_stablehlo),
    "onnx": FileFormat("model.onnx", _write_onnx, _read_onnx),
    "safetensors": FileFormat("params.safetensors", weights.save, _read_safetensors),
    "torch": FileFormat("net.safetensors", _write_torch, _read_torch),
}
