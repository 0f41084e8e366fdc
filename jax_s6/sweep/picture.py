"""The picture of a sweep: loss against epoch, and final accuracy against the setting that was varied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_s6.runs.files import replacing

MAX_LOSS = 20.0
"""Largest loss in the picture: a guess has 2.8, and a learning rate that is far too high has thousands."""
Rows = Sequence[Mapping[str, Any]]


def plot_sweep(path: Path, rows: Rows, history: Rows, swept: Mapping[str, Sequence[Any]]) -> None:
    """Draws loss against epoch for each rate, and final accuracy against rate, with the spread over the rest.

    Loss and accuracy are those of the holdout where there is one, which chooses the best lane, too, or of the test
    images. Where the learning rate was not varied, another number that was takes its place.

    Args:
        path: The picture.
        rows: A row a lane.
        history: A row a lane and epoch.
        swept: The values of each setting that was varied.
    """
    from matplotlib.figure import Figure  # 0.4 s to import, needed once at the end

    numbers = [n for n, v in swept.items() if n != "seed" and all(type(x) in (int, float) for x in v)]
    name = "learning_rate" if "learning_rate" in numbers or not numbers else numbers[0]
    figure = Figure(figsize=(12, 5), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    values = sorted({row[name] for row in rows})
    log = len(values) > 1 and values[0] > 0 and values[-1] >= 4 * values[0]
    judged = "test" if rows[0].get("validation_accuracy") is None else "validation"
    _plot_losses(left, name, values, log, rows, history, judged)
    _plot_accuracies(right, name, values, log, rows, swept, judged)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    with replacing(path) as part:
        figure.savefig(part)


def _plot_losses(axis: Any, name: str, values: list[float], log: bool, rows: Rows, history: Rows, judged: str) -> None:
    """Draws the mean over the lanes of each value, and their range."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
    from matplotlib.ticker import LogLocator

    low, high = values[0], values[-1] if len(values) > 1 else values[0] + 1
    norm = (LogNorm if log else Normalize)(low, high)
    lanes = {value: [row["lane"] for row in rows if row[name] == value] for value in values}
    losses: dict[int, list[float]] = {row["lane"]: [] for row in rows}
    for row in history:
        losses[row["lane"]].append(row[f"{judged}_loss"])
    colours = LinearSegmentedColormap.from_list("rates", colormaps["viridis"](np.linspace(0, 0.92, 64)))
    few = len(values) <= 12  # told apart by a legend: colours as far from each other as there are
    for number, value in enumerate(values):
        longest = max(len(losses[lane]) for lane in lanes[value])
        curves = np.full((len(lanes[value]), longest), np.nan)
        for curve, lane in zip(curves, lanes[value], strict=True):
            curve[: len(losses[lane])] = losses[lane]
        curves = np.ma.masked_invalid(curves)
        epochs = np.arange(1, longest + 1)
        colour = colours(number / max(1, len(values) - 1) if few else norm(value))
        axis.plot(epochs, curves.mean(0), color=colour, marker=".", markersize=5, linewidth=1.5, label=f"{value:g}")
        if len(curves) > 1 and few:
            axis.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.1, linewidth=0)
    label = name.replace("_", " ")
    if few:
        axis.legend(title=label, ncols=2 if len(values) > 6 else 1)
    else:
        axis.figure.colorbar(ScalarMappable(norm, colours), ax=axis, label=label)
    spread = "; mean and range of the lanes" if len(rows) > len(values) else ""
    axis.set(xlabel="epoch", ylabel=f"{judged} loss", yscale="log", title=f"Loss for each {label}{spread}")
    axis.set_ylim(top=min(axis.get_ylim()[1], MAX_LOSS))
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")


def _plot_accuracies(
    axis: Any, name: str, values: list[float], log: bool, rows: Rows, swept: Mapping[str, Sequence[Any]], judged: str
) -> None:
    """Draws lanes as dots, and mean and standard deviation over seeds for each combination of the other settings."""
    others = [other for other in swept if other not in (name, "seed")]
    keys = list(dict.fromkeys(tuple(row[other] for other in others) for row in rows))
    kept = [row for row in rows if row["diverged_at"] is None]
    if len(keys) > 8:  # more lines than can be told apart: all lanes of a value together
        others, keys = [], [()]
    for number, key in enumerate(keys):
        at = {v: [r for r in kept if r[name] == v and tuple(r[o] for o in others) == key] for v in values}
        at = {value: lanes for value, lanes in at.items() if lanes}
        scores = [np.array([100 * row[f"{judged}_accuracy"] for row in lanes]) for lanes in at.values()]
        deviations = [score.std(ddof=1) if len(score) > 1 else 0.0 for score in scores]
        label = ", ".join(f"{o.replace('_', ' ')} {v}" for o, v in zip(others, key, strict=True)) or None
        colour = f"C{number}"
        axis.errorbar(
            list(at), [s.mean() for s in scores], deviations, color=colour, marker="o", capsize=3, label=label
        )
        dots = [(value, score) for value, group in zip(at, scores, strict=True) for score in group if len(group) > 1]
        if dots:
            axis.plot(*zip(*dots, strict=True), ".", color=colour, alpha=0.4, markersize=5)
    lost = [row for row in rows if row["diverged_at"] is not None]
    if lost:
        at_the_foot = {"transform": axis.get_xaxis_transform(), "clip_on": False}
        rates = sorted({row[name] for row in lost})
        axis.plot(rates, np.zeros(len(rates)), "x", color="red", markersize=9, label="diverged", **at_the_foot)
    if log:
        axis.set_xscale("log")
        if len(values) <= 12:
            axis.set_xticks(values, [f"{value:g}" for value in values])
            axis.minorticks_off()
    spread = "; mean and deviation" if len(rows) > len(values) * len(keys) else ""
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, high - 0.1), min(high, 100.5))  # differences under an image mean nothing
    axis.set(xlabel=name.replace("_", " "), ylabel=f"final {judged} accuracy, %", title=f"Final accuracy{spread}")
    if axis.get_legend_handles_labels()[0]:
        axis.legend()
