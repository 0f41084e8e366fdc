"""A picture a question: values against the cases on log axes with error bars, or bars where there is one case."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def plot(path: Path, title: str, entries: Sequence[Mapping[str, Any]], memory: bool = False) -> None:
    """Draws a question's results: ours in colour and solid, peers grey-blue and dashed; peak memory below if asked."""
    cases = list(dict.fromkeys(entry["case"] for entry in entries))
    numeric = len(cases) > 1 and all(isinstance(case, (int, float)) for case in cases)
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    height = 5.5 if numeric else 1.2 + 0.32 * len(entries)
    memory = memory and numeric
    figure, panels = plt.subplots(2 if memory else 1, figsize=(10, max(height, 3) + 4 * memory), layout="constrained")
    axes = panels[0] if memory else panels
    (_lines if numeric else _bars)(axes, entries, arms)
    if memory:
        _memory(panels[1], entries, arms)
    unit = entries[0]["unit"] + ("" if entries[0]["higher_is_better"] else " (less is better)")
    (axes.set_ylabel if numeric else axes.set_xlabel)(unit)
    axes.set_title(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _lines(axes: Any, entries: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> None:
    ours = [arm for arm in arms if not next(e for e in entries if e["arm"] == arm)["peer"]]
    peers = [arm for arm in arms if arm not in ours]
    for group, colours, style in ((ours, plt.cm.autumn, "-"), (peers, plt.cm.winter, "--")):  # pyright: ignore[reportAttributeAccessIssue]
        for place, arm in enumerate(group):
            mine = sorted((e for e in entries if e["arm"] == arm), key=lambda e: e["case"])
            middle = [e["value"]["median"] for e in mine]
            bars = [[m - e["value"]["q1"] for m, e in zip(middle, mine, strict=True)]]
            bars.append([e["value"]["q3"] - m for m, e in zip(middle, mine, strict=True)])
            marker = "osD^vP*X<>"[place % 10]
            colour = colours(place / max(len(group), 2))
            cases = [e["case"] for e in mine]
            axes.errorbar(cases, middle, bars, label=arm, color=colour, ls=style, marker=marker, ms=5, capsize=3)
    cases = sorted({entry["case"] for entry in entries})
    axes.set_xscale("log", base=2 if all(math.log2(case).is_integer() for case in cases) else 10)
    axes.set_yscale("log")
    axes.set_xticks(cases, [f"{case:,}" for case in cases])
    axes.xaxis.minorticks_off()
    axes.set_xlabel(entries[0]["axis"])
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _memory(axes: Any, entries: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> None:
    """Draws each process's peak memory against the cases, both linear, so that a straight line is a price a case."""
    for arm in arms:
        mine = sorted((e for e in entries if e["arm"] == arm), key=lambda e: e["case"])
        peaks = [max(sample["peak_memory"]["host"] for sample in e["samples"]) / 1e6 for e in mine]
        axes.plot([e["case"] for e in mine], peaks, marker="o", ms=5, label=arm)
    axes.set_ylim(bottom=0)
    axes.set(xlabel=entries[0]["axis"], ylabel="peak memory so far, MB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _bars(axes: Any, entries: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> None:
    rows = sorted(entries, key=lambda e: (str(e["case"]), e["value"]["median"]))
    one = len({entry["case"] for entry in entries}) == 1
    for place, entry in enumerate(rows):
        value = entry["value"]
        error = [[value["median"] - value["q1"]], [value["q3"] - value["median"]]]
        colour = "lightsteelblue" if entry["peer"] else "tab:orange"
        axes.barh(place, value["median"], xerr=error, color=colour, capsize=3)
    labels = [e["arm"] if one else f"{e['arm']}, {e['axis']} {e['case']}" for e in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(alpha=0.3, axis="x")
