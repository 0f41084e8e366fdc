"""Name the digits in pictures: ``python -m jax_s6.predict``, and ``load_model(run).predict(images)`` from Python."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from jax_s6 import backend, cli
from jax_s6.data import cache as data_cache
from jax_s6.errors import InputError
from jax_s6.predict import pictures as predict_images
from jax_s6.predict import sheet as predict_sheet
from jax_s6.predict.model import NUM_LABELS, Model, load_model

__all__ = ["Model", "load_model", "main"]
PROG = "python -m jax_s6.predict"
_BATCH = 64  # pictures that are read before their lines are printed


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """Name the digit in each picture.

    Pictures may be of any size, dark on light or light on dark, photographed or drawn, with one digit each: it is cut
    out, scaled and centred as MNIST's were. Prints a line a picture: the file, the answer, its probability, the next
    two. Pictures that cannot be used are named on standard error, and the exit status is then 2.
    """

    images: tyro.conf.Positional[tuple[str, ...]]
    """PNG, JPEG, BMP, TIFF or WebP files of at most 64 million pixels, folders of them, or quoted globs."""
    run: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A run's folder or a safetensors file with the trained weights; the network that ships with the package if not
    given."""
    raw: bool = False
    """The pictures are in MNIST's form already: 28x28, light on dark, centred."""
    json: bool = False
    """Print a JSON object a line instead: image, class, name, probability and the probabilities of all outputs."""
    sheet: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also draw a contact sheet, a PNG file: what the network saw of the first 400 pictures, with its answers."""


class Answer(NamedTuple):
    """What the network says of one file.

    Attributes:
        path: The file.
        image: uint8 ``[28, 28]``: what the network saw.
        probabilities: float32 ``[16]``, of the outputs.
    """

    path: Path
    image: np.ndarray
    probabilities: np.ndarray


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = cli.parse(PredictCommand, prog=PROG, args=args)
    if not command.images:
        raise InputError(f"images must name at least one picture, folder or glob (see {PROG} --help)")
    files = list(predict_images.find_files(command.images))
    if command.sheet is not None:
        _check_sheet(command.sheet, files)
    network = load_model(command.run)
    backend.use_cpu_devices()
    backend.use_compilation_cache(data_cache.cache_folder())
    show = _as_json if command.json else _as_text
    shown, count = [], 0
    for answer in predict_files(network, files, raw=command.raw, on_error=_complain):
        print(show(answer, network.class_names))
        count += 1
        best = int(answer.probabilities.argmax())
        if command.sheet is not None and len(shown) < predict_sheet.MAX_IMAGES:
            name, probability = network.class_names[best], float(answer.probabilities[best])
            shown.append(predict_sheet.Shown(answer.path.name, answer.image, name, probability))
    if command.sheet is not None and shown:
        predict_sheet.draw_sheet(command.sheet, shown, count, network.source)
    if count < len(files):
        raise SystemExit(2)


def _check_sheet(sheet: Path, files: Sequence[Path]) -> None:
    """Raises InputError if the sheet cannot go there, before there are answers."""
    if sheet.suffix.lower() != ".png":
        raise InputError(f"sheet must be the name of a .png file, got {sheet}")
    if not sheet.parent.is_dir():
        raise InputError(f"sheet {sheet} cannot be written, as {sheet.parent} is no folder: give another --sheet")
    if sheet.resolve() in {file.resolve() for file in files}:
        raise InputError(f"sheet {sheet} is one of the pictures: give another --sheet")


def predict_files(
    network: Model, files: Sequence[Path], *, raw: bool = False, on_error: Callable[[InputError], None]
) -> Iterator[Answer]:
    """Answers file by file, in order, those that cannot be used left out.

    Args:
        network: What answers.
        files: The pictures.
        raw: Whether they are in MNIST's form already.
        on_error: Is told of each file that cannot be used.

    Yields:
        An answer a file.
    """
    for start in range(0, len(files), _BATCH):
        read = []
        for path in files[start : start + _BATCH]:
            try:
                read.append((path, predict_images.read_digit(path, raw=raw)))
            except InputError as error:
                on_error(error)
        if read:
            probabilities = network.predict_proba(np.stack([image for _, image in read]))
            for (path, image), each in zip(read, probabilities, strict=True):
                yield Answer(path, image, each)


def _complain(error: InputError) -> None:
    print(f"error: {error}", file=sys.stderr)


def _as_text(answer: Answer, class_names: Sequence[str]) -> str:
    """The file, the answer, its probability, and the next two."""
    first, *others = np.argsort(-answer.probabilities)
    labels = [i for i in others if i < NUM_LABELS]
    next_two = ", ".join(f"{class_names[i]} {answer.probabilities[i]:.1%}" for i in labels[:2])
    return f"{answer.path}  {class_names[first]}  {answer.probabilities[first]:.1%}  (then {next_two})"


def _as_json(answer: Answer, class_names: Sequence[str]) -> str:
    best = int(answer.probabilities.argmax())
    return json.dumps(
        {
            "image": str(answer.path),
            "class": best,
            "name": class_names[best],
            "probability": float(answer.probabilities[best]),
            "probabilities": [float(p) for p in answer.probabilities],
        }
    )
