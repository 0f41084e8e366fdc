"""The command line of ``python -m jax_s6.export``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from typing_extensions import Doc

from jax_s6 import backend, cli
from jax_s6.config import DataConfig
from jax_s6.data import EMBEDDED, load
from jax_s6.errors import InputError
from jax_s6.export.card import read_provenance
from jax_s6.export.formats import FORMATS, Format, export
from jax_s6.predict.command import RunPath
from jax_s6.predict.model import load_model, weights_file
from jax_s6.runs.console import console
from jax_s6.runs.files import make_folder

PROG = "python -m jax_s6.export"


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Write a trained network for other programs.

    The written file is verified on all 10,000 test images. Formats: stablehlo is a program serialized by jax.export for
    CPU, CUDA and TPU; onnx is for ONNX Runtime and similar programs; safetensors holds the weights with this package's
    names; torch is a state dict in safetensors, with the names of the reference's Net. A description is written to
    FILE.json: input, output, and the command, seed and accuracy of the run.
    """

    format: Annotated[Format, Doc("Format of the file.")]
    run: RunPath = None
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FILE"),
        Doc("File to write; if not given, model.stablehlo, model.onnx, params.safetensors or net.safetensors."),
    ] = None
    overwrite: Annotated[bool, Doc("Replace the file if it exists.")] = False


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    command = cli.parse(ExportCommand, prog=PROG, args=args)
    usual_name = FORMATS[command.format].file_name
    out = command.out or Path(usual_name)
    if out.is_dir():
        raise InputError(f"out must be a file, but {out} is a folder: give one such as {out / usual_name}")
    if out.exists() and not command.overwrite:
        raise InputError(f"out {out} exists: give another --out, or --overwrite to replace it")
    network = load_model(command.run)
    make_folder(out.parent)
    backend.use_compilation_cache(backend.cache_folder())
    images = load(DataConfig(data_dir=EMBEDDED)).test_images  # not from the cache, as this takes only 0.3 s
    difference = export(network, command.format, out, images, read_provenance(weights_file(command.run)))
    console.print(
        f"wrote {out} ({out.stat().st_size / 1000:,.0f} kB): its logits differ by at most {difference:.1g} from the"
        f" network's on {len(images):,} test images", soft_wrap=True,
    )  # fmt: skip
