"""The picture of a run: loss and accuracy against epochs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jax_s6.runs.files import replacing
from jax_s6.runs.score_card import GOAL


def plot_curves(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draws loss and accuracy against epochs."""
    from matplotlib.figure import Figure  # 0.4 s to import, needed once at the end

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    evaluated = [("test", "C0"), *([("validation", "C2")] if rows[0].get("validation_accuracy") is not None else [])]
    for name, colour in (("train", "C1"), *evaluated):
        left.plot(epochs, [row[f"{name}_loss"] for row in rows], f"{colour}.-", label=name)
        right.plot(epochs, [100 * row[f"{name}_accuracy"] for row in rows], f"{colour}.-", label=name)
    left.set(xlabel="epoch", ylabel="cross-entropy", yscale="log", title=title)
    final = 100 * rows[-1]["test_accuracy"]
    right.axhline(100 * GOAL, color="grey", linestyle="--", linewidth=1, label="asked: 99.4 %")
    names = ("train", *(name for name, _ in evaluated))
    lowest = min(min(100 * row[f"{name}_accuracy"] for name in names) for row in rows[len(rows) // 4 :])
    right.set(xlabel="epoch", ylabel="accuracy, %", title=f"final test accuracy {final:.2f} %")
    right.set_ylim(min(98.0, lowest - 0.1), 100)
    for axis, corner in ((left, "upper right"), (right, "upper left")):  # losses fall, accuracies rise
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(alpha=0.3)
        axis.legend(loc=corner)
    with replacing(path) as part:
        figure.savefig(part)
