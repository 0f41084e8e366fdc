"""The picture of a sweep: loss against epoch, and final accuracy against the setting that was varied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_s6.runs.files import replacing

MAX_LOSS = 20.0
"""Largest loss in the picture: a guess has 2.8, and a learning rate that is far too high has thousands."""
Rows = Sequence[Mapping[str, Any]]


class Axis(NamedTuple):
    """The setting against which a sweep is drawn.

    Attributes:
        name: The setting.
        values: Its values, ascending.
        log: Whether they are drawn on a logarithmic scale.
        split: The images by which lanes are compared: ``validation`` or ``test``.
    """

    name: str
    values: list[float]
    log: bool
    split: str

    @property
    def label(self) -> str:
        """The setting's name in words."""
        return self.name.replace("_", " ")


def plot_sweep(path: Path, rows: Rows, history: Rows, swept: Mapping[str, Sequence[Any]]) -> None:
    """Draw loss against epoch for each learning rate, and final accuracy against the learning rate.

    Losses and accuracies are those of the held-out images if there are any, and of the test images otherwise. If the
    learning rate was not varied, another number that was varied takes its place.

    Args:
        path: The picture.
        rows: One row per lane.
        history: One row per lane and epoch.
        swept: The values of each setting that was varied.
    """
    from matplotlib.figure import Figure  # takes 0.4 s to import, and is needed only at the end

    numbers = [n for n, v in swept.items() if n != "seed" and all(type(x) in (int, float) for x in v)]
    name = "learning_rate" if "learning_rate" in numbers or not numbers else numbers[0]
    values = sorted({row[name] for row in rows})
    log = len(values) > 1 and values[0] > 0 and values[-1] >= 4 * values[0]
    axis = Axis(name, values, log, "test" if rows[0].get("validation_accuracy") is None else "validation")
    figure = Figure(figsize=(12, 5), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _plot_losses(left, axis, rows, _losses(rows, history, axis.split))
    _plot_accuracies(right, axis, rows, swept)
    for plot in (left, right):
        plot.grid(alpha=0.3)
    with replacing(path) as part:
        figure.savefig(part)


def _losses(rows: Rows, history: Rows, split: str) -> dict[int, list[float]]:
    """Return each lane's losses, one per epoch."""
    losses: dict[int, list[float]] = {row["lane"]: [] for row in rows}
    for row in history:
        losses[row["lane"]].append(row[f"{split}_loss"])
    return losses


def _plot_losses(plot: Any, axis: Axis, rows: Rows, losses: Mapping[int, Sequence[float]]) -> None:
    """Draw the mean and the range of the lanes with each value."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

    low, high = axis.values[0], axis.values[-1] if len(axis.values) > 1 else axis.values[0] + 1
    norm = (LogNorm if axis.log else Normalize)(low, high)
    colours = LinearSegmentedColormap.from_list("values", colormaps["viridis"](np.linspace(0, 0.92, 64)))
    few = len(axis.values) <= 12  # a legend distinguishes them, and their colours are as different as possible
    for number, value in enumerate(axis.values):
        lanes = [losses[row["lane"]] for row in rows if row[axis.name] == value]
        curves = np.full((len(lanes), max(map(len, lanes))), np.nan)
        for curve, lane in zip(curves, lanes, strict=True):
            curve[: len(lane)] = lane
        curves = np.ma.masked_invalid(curves)
        epochs = np.arange(1, curves.shape[1] + 1)
        colour = colours(number / max(1, len(axis.values) - 1) if few else norm(value))
        plot.plot(epochs, curves.mean(0), color=colour, marker=".", markersize=5, linewidth=1.5, label=f"{value:g}")
        if len(curves) > 1 and few:
            plot.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.1, linewidth=0)
    if few:
        plot.legend(title=axis.label, ncols=2 if len(axis.values) > 6 else 1)
    else:
        plot.figure.colorbar(ScalarMappable(norm, colours), ax=plot, label=axis.label)
    spread = ": mean and range of the lanes" if len(rows) > len(axis.values) else ""
    plot.set(xlabel="epoch", ylabel=f"{axis.split} loss", title=f"Loss by epoch for each {axis.label}{spread}")
    _scale_losses(plot)


def _scale_losses(plot: Any) -> None:
    """Make the axis of losses logarithmic, with plain numbers, up to ``MAX_LOSS``."""
    from matplotlib.ticker import LogLocator

    plot.set_yscale("log")
    plot.set_ylim(top=min(plot.get_ylim()[1], MAX_LOSS))
    plot.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    plot.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    plot.yaxis.set_major_formatter("{x:g}")
    plot.yaxis.set_minor_formatter("{x:g}")


def _plot_accuracies(plot: Any, axis: Axis, rows: Rows, swept: Mapping[str, Sequence[Any]]) -> None:
    """Draw lanes as dots, and mean and standard deviation over seeds for each combination of the other settings."""
    others = [other for other in swept if other not in (axis.name, "seed")]
    keys = list(dict.fromkeys(tuple(row[other] for other in others) for row in rows))
    if len(keys) > 8:  # more lines than can be distinguished: all lanes with a value together
        others, keys = [], [()]
    for number, key in enumerate(keys):
        label = ", ".join(f"{o.replace('_', ' ')} {v}" for o, v in zip(others, key, strict=True)) or None
        lanes = [row for row in rows if tuple(row[o] for o in others) == key and row["diverged_at"] is None]
        _plot_lanes(plot, axis, lanes, f"C{number}", label)
    if diverged := sorted({row[axis.name] for row in rows if row["diverged_at"] is not None}):
        bottom = {"transform": plot.get_xaxis_transform(), "clip_on": False}
        plot.plot(diverged, np.zeros(len(diverged)), "x", color="red", markersize=9, label="diverged", **bottom)
    if axis.log:
        plot.set_xscale("log")
        if len(axis.values) <= 12:
            plot.set_xticks(axis.values, [f"{value:g}" for value in axis.values])
            plot.minorticks_off()
    spread = ": mean and standard deviation" if len(rows) > len(axis.values) * len(keys) else ""
    low, high = plot.get_ylim()
    plot.set_ylim(min(low, high - 0.1), min(high, 100.5))  # differences of less than an image mean nothing
    title = f"Final accuracy{spread}"
    plot.set(xlabel=axis.label, ylabel=f"{axis.split} accuracy, %", title=title)
    if plot.get_legend_handles_labels()[0]:
        plot.legend()


def _plot_lanes(plot: Any, axis: Axis, lanes: Rows, colour: str, label: str | None) -> None:
    """Draw one line through the means at each value, with the deviations, and the lanes as dots."""
    percent = [(row[axis.name], 100 * row[f"{axis.split}_accuracy"]) for row in lanes]
    scores = {value: np.array([y for x, y in percent if x == value]) for value in axis.values}
    scores = {value: score for value, score in scores.items() if len(score)}
    deviations = [score.std(ddof=1) if len(score) > 1 else 0.0 for score in scores.values()]
    means = [score.mean() for score in scores.values()]
    plot.errorbar(list(scores), means, deviations, color=colour, marker="o", capsize=3, label=label)
    dots = [(value, y) for value, y in percent if len(scores[value]) > 1]
    if dots:
        plot.plot(*zip(*dots, strict=True), ".", color=colour, alpha=0.4, markersize=5)
