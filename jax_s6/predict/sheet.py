"""The contact sheet: what the network saw of each picture, with its answer under it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_s6.runs.files import replacing

MAX_IMAGES = 400
"""The most that one sheet shows."""
SURE = 0.9
"""Answers of a lower probability are in red."""
_COLUMNS = 10


class Shown(NamedTuple):
    """One picture of a sheet: its file's name, uint8 ``[28, 28]``, and the answer with its probability."""

    name: str
    image: np.ndarray
    answer: str
    probability: float


def draw_sheet(path: Path, shown: Sequence[Shown], count: int, source: str) -> None:
    """Draws pictures with their answers; those of less than ``SURE`` are in red.

    Args:
        path: Of the PNG file.
        shown: The pictures, at least one, at most ``MAX_IMAGES``.
        count: How many there were in all, for the title.
        source: The network's name, for the title.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.figure import Figure  # 0.4 s to import, needed once at the end

    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(4.0, 1.3 * columns), 0.6 + 1.6 * rows), layout="constrained", dpi=120)
    part_of = f" (the first {len(shown):,} of {count:,} pictures)" if len(shown) < count else ""
    network = "/".join(Path(source).parts[-2:])
    red = "; red: less than 90 %" if any(picture.probability < SURE for picture in shown) else ""
    figure.suptitle(f"What the network saw{part_of}{red}\n{network}", fontsize=9)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image, answer, probability) in zip(axes.flat, shown, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}", fontsize=7)
        colour = "black" if probability >= SURE else "#c00000"
        axis.text(0.5, -0.03, f"{answer}  {probability:.1%}", transform=axis.transAxes, ha="center", va="top",
                  fontsize=9, color=colour)  # fmt: skip
    with replacing(path) as part:
        figure.savefig(part, format="png")
