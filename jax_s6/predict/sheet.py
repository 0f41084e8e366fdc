"""The contact sheet: what the network saw of each picture, with its prediction below."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax_s6.predict.predictions import Prediction
from jax_s6.runs.files import replacing

MAX_IMAGES = 400
"""The largest number of pictures on one sheet."""
SURE = 0.9
"""Predictions with a lower probability are printed in red."""
_COLUMNS = 10


def draw_sheet(path: Path, shown: Sequence[Prediction], count: int, source: str) -> None:
    """Draw pictures with their predictions; those with a probability below ``SURE`` are in red.

    Args:
        path: The PNG file to write.
        shown: The predictions to draw, from 1 to ``MAX_IMAGES``.
        count: The number of all predictions, for the title.
        source: The file of the network's weights, for the title.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.figure import Figure  # 0.4 s to import, needed once at the end

    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(4.0, 1.3 * columns), 0.6 + 1.6 * rows), layout="constrained", dpi=120)
    part_of = f" (the first {len(shown):,} of {count:,} pictures)" if len(shown) < count else ""
    red = f"; red: probability below {SURE:.0%}" if any(each.best[2] < SURE for each in shown) else ""
    title = f"What the network saw, and its predictions{part_of}{red}"
    figure.suptitle(f"{title}\n{'/'.join(Path(source).parts[-2:])}", fontsize=9)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, each in zip(axes.flat, shown, strict=False):
        axis.imshow(each.image, cmap="gray", vmin=0, vmax=255)
        file, (_, name, probability) = each.path.name, each.best
        axis.set_title(file if len(file) <= 16 else f"{file[:7]}…{file[-8:]}", fontsize=7)
        colour = "black" if probability >= SURE else "#c00000"
        axis.text(0.5, -0.03, f"{name}  {probability:.1%}", transform=axis.transAxes, ha="center", va="top",
                  fontsize=9, color=colour)  # fmt: skip
    with replacing(path) as part:
        figure.savefig(part, format="png")
