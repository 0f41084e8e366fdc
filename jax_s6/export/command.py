"""Take a trained network elsewhere: ``python -m jax_s6.export``. Each file is verified before it takes its place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import tyro
from safetensors.numpy import load_file

from jax_s6 import backend, cli
from jax_s6.config import DataConfig, ModelConfig
from jax_s6.data import cache as data_cache
from jax_s6.data import dataset as data
from jax_s6.errors import InputError
from jax_s6.export import card as export_card
from jax_s6.export import onnx as export_onnx
from jax_s6.network import net as model
from jax_s6.network import weights
from jax_s6.predict.model import Model, load_model, weights_file
from jax_s6.runs.console import console
from jax_s6.runs.files import make_folder, replacing, write_json

PROG = "python -m jax_s6.export"
PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5
"""The largest difference to the network's logits, relative to the image's largest logit where that is beyond 1."""
Format = Literal["stablehlo", "onnx", "safetensors", "torch"]
_NAMES: dict[str, str] = {
    "stablehlo": "model.stablehlo",
    "onnx": "model.onnx",
    "safetensors": "params.safetensors",
    "torch": "net.safetensors",
}
_BATCHES = (1, 7, 992, 3000, 6000)  # 10,000 images, so that a batch size that is not free is found out


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Write a trained network for other programs, and verify it on all 10,000 test images before saying so.

    stablehlo: what jax.export serialises, for CPU, CUDA and TPU. onnx: for ONNX Runtime and the like. safetensors: the
    weights by this package's names. torch: a state dict in safetensors, by the names of the reference's Net. Beside the
    file goes FILE.json: input, output, and the command, seed and accuracy of the run.
    """

    format: Format
    """What to write."""
    run: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A run's folder or a safetensors file; the network that ships with the package if not given."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file to write; model.stablehlo, model.onnx, params.safetensors or net.safetensors here if not given."""
    overwrite: bool = False
    """Replace the file if it exists."""

    def __post_init__(self) -> None:
        """Raises InputError for an unknown format, which from Python tyro does not check."""
        if self.format not in get_args(Format):
            raise InputError(f"format must be one of {', '.join(get_args(Format))}, got {self.format!r}")


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = cli.parse(ExportCommand, prog=PROG, args=args)
    out = command.out or Path(_NAMES[command.format])
    if out.is_dir():
        raise InputError(f"out must be a file, but {out} is a folder: give one such as {out / _NAMES[command.format]}")
    if out.exists() and not command.overwrite:
        raise InputError(f"out {out} exists: give another --out, or --overwrite to replace it")
    network = load_model(command.run)
    make_folder(out.parent)
    backend.use_compilation_cache(data_cache.cache_folder())
    images = data.load(DataConfig(data_dir=data.EMBEDDED)).test_images  # without the cache: 0.3 s
    provenance = export_card.read_provenance(weights_file(command.run))
    difference = export(network, command.format, out, images, provenance)
    console.print(
        f"wrote {out} ({out.stat().st_size / 1000:,.0f} kB): on {len(images):,} test images its logits are within"
        f" {difference:.1g} of the network's", soft_wrap=True,
    )  # fmt: skip


def export(
    network: Model, kind: Format, out: Path, images: np.ndarray, provenance: Mapping[str, Any] | None = None
) -> float:
    """Writes a network's file and card, after reading the file back and running it.

    Args:
        network: What to write.
        kind: The format.
        out: The file; it is there only if it was verified.
        images: uint8 ``[n, 28, 28, 1]``, what to verify on.
        provenance: What is known of the run.

    Returns:
        The largest difference between the file's and the network's logits; see ``TOLERANCE``.

    Raises:
        InputError: A package is missing, or the file cannot be written.
        RuntimeError: The written file does not compute what the network does.
    """
    provenance = dict(provenance or {})
    write, read = _FORMATS[kind]
    with replacing(out) as part:
        write(part, network.variables, {name: str(value) for name, value in provenance.items()})
        run = read(part)
        difference = _compare(run, network, images)
        if not difference <= TOLERANCE:  # NaN is not
            raise RuntimeError(f"the {kind} file's logits differ by {difference:.3g} from the network's: nothing kept")
        verified = {"images": len(images), "largest_difference": float(difference)}
        card = export_card.make_card(part, provenance, kind, verified)
    write_json(export_card.card_path(out), card)
    return difference


Run = Callable[[np.ndarray], np.ndarray]


def _compare(run: Run, network: Model, images: np.ndarray) -> float:
    """Runs both in batches of several sizes."""
    ends = np.cumsum(_BATCHES)
    parts = [part for part in np.split(images, ends[ends < len(images)]) if len(part)]
    got, expected = np.concatenate([run(part) for part in parts]), network.logits(images)
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return float("nan")
    return float((np.abs(got - expected) / np.maximum(1, np.abs(expected).max(1, keepdims=True))).max())


def to_stablehlo(variables: Mapping[str, Any]) -> jax.export.Exported:
    """Lowers the network, weights included, for CPU, CUDA and TPU, with a symbolic batch size."""
    net = model.create(ModelConfig(convolution="xla", precision="float32"))

    def logits(images: jax.Array) -> Any:
        return net.apply(jax.tree.map(jnp.asarray, dict(variables)), images)

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 28, 28, 1), jnp.uint8)
    return jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)


def _write_stablehlo(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    path.write_bytes(to_stablehlo(variables).serialize())


def _read_stablehlo(path: Path) -> Run:
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == PLATFORMS, exported.platforms
    return lambda images: np.asarray(exported.call(images))


def _write_onnx(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    path.write_bytes(export_onnx.to_onnx(variables, metadata).SerializeToString())


def _read_onnx(path: Path) -> Run:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("format onnx is verified with onnxruntime: pip install 'jax-s6[onnx]'") from None
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["logits"], {"images": images})[0])


def _write_safetensors(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    weights.save(path, variables, metadata)


def _write_torch(path: Path, variables: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    state_dict = weights.to_torch_state_dict(variables)
    # PyTorch counts batches; with its default momentum it does not use the count, but a strict load wants it.
    norms = [name.removesuffix(".running_mean") for name in state_dict if name.endswith(".running_mean")]
    state_dict |= {f"{norm}.num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    weights.write(path, state_dict, {**metadata, "format": "pt"})


def _read_safetensors(path: Path) -> Run:
    """Reads this package's names or PyTorch's back into the network."""
    return Model(weights.load(path), (), str(path)).logits


def _read_torch(path: Path) -> Run:
    names = load_file(path).keys()
    assert len(names) == 6 * 7, names  # weight and bias of convolution and norm, two statistics and the count
    return _read_safetensors(path)


_FORMATS: dict[str, tuple[Callable[..., None], Callable[[Path], Run]]] = {
    "stablehlo": (_write_stablehlo, _read_stablehlo),
    "onnx": (_write_onnx, _read_onnx),
    "safetensors": (_write_safetensors, _read_safetensors),
    "torch": (_write_torch, _read_torch),
}
