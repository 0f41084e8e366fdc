"""The picture of the estimates: bars of the estimated bounds, one panel per target, and marks at measured rates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.offline.report import Estimate, label, rounded
from benchmarks.offline.targets import TARGETS


def plot(path: Path, estimates: Sequence[Estimate]) -> None:
    """Draw the estimates; ours are orange, the peers blue."""
    names = list(dict.fromkeys(estimate["target"] for estimate in estimates))
    counts = [sum(estimate["target"] == name for estimate in estimates) for name in names]
    size = (10, 1.0 + sum(1.0 + 0.28 * count for count in counts))
    figure = Figure(figsize=size, layout="constrained", dpi=130)
    panels = figure.subplots(len(names), squeeze=False, height_ratios=[count + 1 for count in counts])[:, 0]
    for axes, name in zip(panels, names, strict=True):
        _draw(axes, [estimate for estimate in estimates if estimate["target"] == name])
        axes.set_title(TARGETS[name].title, fontsize=10)
    panels[-1].set_xlabel("images/s, all lanes together")
    figure.suptitle(
        "Estimated upper bounds of training speed, from compiled programs; nothing ran on the accelerators\n"
        "orange: jax_s6 (ours); blue: other implementations (peers); black diamonds: measured",
        fontsize=10,
    )
    figure.savefig(path)


def _draw(axes: Any, estimates: Sequence[Estimate]) -> None:
    rows = sorted(estimates, key=lambda e: (-e["lanes"], -e["batch"], e["precision"], e["images_per_second"]))
    for place, estimate in enumerate(rows):
        rate, measured = estimate["images_per_second"], estimate["measured"]
        axes.barh(place, rate, color="lightsteelblue" if estimate["peer"] else "tab:orange")
        axes.annotate(rounded(rate), (rate, place), (3, 0), textcoords="offset points", fontsize=7, va="center")
        if measured:
            axes.plot(measured["median"], place, "kD", ms=5)
    axes.set_yticks(range(len(rows)), [label(estimate) for estimate in rows], fontsize=7)
    axes.set_xlim(0, 1.12 * max(estimate["images_per_second"] for estimate in rows))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.3, axis="x")
