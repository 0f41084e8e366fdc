"""The command line of ``python -m jax_s6.predict``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from typing_extensions import Doc

from jax_s6 import backend, cli
from jax_s6.errors import InputError
from jax_s6.predict.model import load_model
from jax_s6.predict.pictures import find_files
from jax_s6.predict.predictions import predict_files
from jax_s6.predict.sheet import MAX_IMAGES, draw_sheet

PROG = "python -m jax_s6.predict"
_RUN_HELP = "A run's folder or a safetensors file; the network that ships with the package if not given."
RunPath = Annotated[Path | None, tyro.conf.arg(metavar="DIR"), Doc(_RUN_HELP)]


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """Predict the digit in each picture.

    Each picture shows one digit. It may have any size, be dark on light or light on dark, a photograph or a drawing:
    the digit is cut out, scaled and centred as MNIST's digits were. Prints one line per picture: the file, the
    prediction, its probability, and the next two most likely digits. Pictures that cannot be used are reported on
    standard error, and the exit status is then 2.
    """

    images: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        Doc("PNG, JPEG, BMP, TIFF or WebP files of at most 64 million pixels, folders of them, or quoted globs."),
    ]
    run: RunPath = None
    raw: Annotated[bool, Doc("Use pictures that already have MNIST's form: 28x28, light on dark, centred.")] = False
    json: Annotated[
        bool, Doc("Print one JSON object per line: image, class, name, probability, probabilities of all outputs.")
    ] = False
    sheet: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FILE"),
        Doc("Also draw a PNG file that shows what the network saw of the first 400 pictures, and its predictions."),
    ] = None


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    command = cli.parse(PredictCommand, prog=PROG, args=args)
    if not command.images:
        raise InputError(f"images must name at least one picture, folder or glob (see {PROG} --help)")
    files = list(find_files(command.images))
    if command.sheet is not None:
        _check_sheet(command.sheet, files)
    network = load_model(command.run)
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    shown, count = [], 0
    predictions = predict_files(
        network, files, raw=command.raw, on_error=lambda error: print(f"error: {error}", file=sys.stderr)
    )
    for count, prediction in enumerate(predictions, start=1):
        print(prediction.to_json() if command.json else prediction.to_text())
        if command.sheet is not None and count <= MAX_IMAGES:
            shown.append(prediction)
    if command.sheet is not None and shown:
        draw_sheet(command.sheet, shown, count, network.source)
    if count < len(files):
        raise SystemExit(2)


def _check_sheet(sheet: Path, files: Sequence[Path]) -> None:
    """Raise InputError if the sheet cannot be written to this file, before time is spent on predictions."""
    if sheet.suffix.lower() != ".png":
        raise InputError(f"sheet must be the name of a .png file, got {sheet}")
    if not sheet.parent.is_dir():
        raise InputError(f"sheet {sheet} cannot be written, as {sheet.parent} is no folder: give another --sheet")
    if sheet.resolve() in {file.resolve() for file in files}:
        raise InputError(f"sheet {sheet} is one of the pictures: give another --sheet")
