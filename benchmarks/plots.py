"""One picture per benchmark: values against the cases on logarithmic axes, or bars where the cases are few."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.report import axis_label, peak_megabytes

Entries = Sequence[Mapping[str, Any]]


def plot(path: Path, title: str, entries: Entries, memory: bool = False) -> None:
    """Draw a benchmark's results.

    Args:
        path: The picture to write.
        title: What was measured.
        entries: The results; our arms are orange and solid, the peers blue and dashed.
        memory: Whether to show peak memory, too, in a second panel.
    """
    cases = list(dict.fromkeys(entry["case"] for entry in entries))
    numeric = len(cases) > 1 and all(isinstance(case, int | float) for case in cases)
    memory = memory and numeric
    height = 5.5 if numeric else 1.2 + 0.32 * len(entries)
    figure = Figure(figsize=(10, max(height, 3.2) + 4 * memory), layout="constrained", dpi=130)
    axes = figure.subplots(2 if memory else 1, squeeze=False)[:, 0]
    unit = entries[0]["unit"] + ("" if entries[0]["higher_is_better"] else " (lower is better)")
    if numeric:
        _draw_lines(axes[0], entries)
        cases = sorted(cases)
        axes[0].set_xscale("log", base=2 if all(math.log2(case).is_integer() for case in cases) else 10)
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes[0].yaxis.set_minor_formatter(lambda value, _: f"{value:,g}" if f"{value:e}"[0] in "235" else "")
        axes[0].set_xticks(cases, [f"{case:,}" for case in cases])
        axes[0].xaxis.minorticks_off()
        axes[0].set_ylabel(unit)
    else:
        _draw_bars(axes[0], entries)
        axes[0].set_xlabel(unit)
    if memory:  # on linear axes, where the slope is the memory per case
        _draw_lines(axes[1], entries, memory=True)
        axes[1].set(ylabel="peak memory of the process so far, MB", ylim=(0, None))
    n = sorted({entry["value"]["n"] for entry in entries})
    samples = (
        "one sample" if n == [1] else f"median and quartiles of {' to '.join(map(str, n[:1] + n[1:][-1:]))} samples"
    )
    axes[0].set_title(f"{title}\norange: jax_s6 (ours); blue: other implementations (peers); {samples}", fontsize=10)
    figure.savefig(path)


def _draw_lines(axes: Any, entries: Entries, memory: bool = False) -> None:
    ours, peers = (list(dict.fromkeys(e["arm"] for e in entries if e["peer"] == peer)) for peer in (False, True))
    for group, colours, style in ((ours, "autumn", "-"), (peers, "winter", "--")):
        for place, arm in enumerate(group):
            mine = sorted((entry for entry in entries if entry["arm"] == arm), key=lambda entry: entry["case"])
            values = [entry["value"] for entry in mine]
            middle = [peak_megabytes(entry) for entry in mine] if memory else [v["median"] for v in values]
            errors = [[v["median"] - v["q1"] for v in values], [v["q3"] - v["median"] for v in values]]
            look = {"color": colormaps[colours](place / max(len(group), 2)), "marker": "osD^vP*X<>"[place % 10]}
            cases = [entry["case"] for entry in mine]
            axes.errorbar(cases, middle, None if memory else errors, label=arm, ls=style, ms=5, capsize=3, **look)
    axes.set_xlabel(axis_label(entries))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_bars(axes: Any, entries: Entries) -> None:
    rows = sorted(entries, key=lambda entry: (str(entry["case"]), entry["value"]["median"]))
    one = len({entry["case"] for entry in entries}) == 1
    for place, entry in enumerate(rows):
        value = entry["value"]
        error = [[value["median"] - value["q1"]], [value["q3"] - value["median"]]]
        colour = "lightsteelblue" if entry["peer"] else "tab:orange"
        axes.barh(place, value["median"], xerr=error, color=colour, capsize=3)
    labels = [e["arm"] if one else f"{e['arm']}, {axis_label([e])} {e['case']}" for e in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(alpha=0.3, axis="x")
