"""``report.md``: for each benchmark the ratios to the best peer, every value, and notes; then what was not run."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]

AXES = {
    "batch": "batch size",
    "lanes": "networks trained at once (lanes)",
    "images": "images per epoch",
    "percent": "test accuracy to reach, %",
    "learning_rate": "learning rate",
}
"""What tables and pictures call the argument that a benchmark's cases vary."""


def axis_label(entries: Sequence[Entry]) -> str:
    """Return the name of what the cases of a benchmark vary, for a reader."""
    axis: str = entries[0]["axis"]
    return AXES.get(axis, axis)


def render(results: Mapping[str, Any], benchmarks: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Write the report.

    Args:
        results: What ``results.to_json`` returned.
        benchmarks: The benchmarks by name, for titles and notes.
        pictures: The file name of a benchmark's picture, by the benchmark's name.
    """
    parts = [_head(results)]
    entries = [item["extra_info"] for item in results["benchmarks"]]
    for name in dict.fromkeys(entry["question"] for entry in entries):
        mine = [entry for entry in entries if entry["question"] == name]
        benchmark = benchmarks.get(name)
        parts.append(f"## {name}" + (f": {benchmark.title}" if benchmark else ""))
        parts += [f"![{name}]({pictures[name]})"] if name in pictures else []
        parts += [table] if (table := ratios(mine)) else []
        parts += [values(mine), *_details(mine)]
        parts += [benchmark.note] if benchmark and benchmark.note else []
    if results["not_run"]:
        parts.append("## Not run")
        parts.append("\n".join(f"- {x['question']} {x['case']}, {x['arm']}: {x['reason']}" for x in results["not_run"]))
    return "\n\n".join(parts) + "\n"


def _head(results: Mapping[str, Any]) -> str:
    info, commit = results["machine_info"], results["commit_info"]
    cpu, device = info["cpu"], info["device"]
    features = [flag for flag in ("avx2", "avx512f", "amx_tile") if flag in cpu["flags"]]
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    load = ", ".join(f"{x:.2f}" for x in info["load_average"])
    environment = ", ".join(f"{name}={value}" for name, value in info["environment"].items())
    return "\n\n".join(
        (
            "# Benchmarks",
            f"Processor: {cpu['brand_raw']}, cores {info['affinity']} (vector units: {', '.join(features) or 'none'})."
            f" Memory: {(info['memory_bytes'] or 0) / 1e9:.0f} GB. JAX devices: {device.get('count')} x"
            f" {device.get('kind')}. Load average at the end: {load}. Environment variables: {environment or 'none'}."
            f" Versions: Python {info['python_version']}, {versions}.",
            f"Commit {commit['id'][:12]}{' with changes' if commit['dirty'] else ''}, {results['datetime'][:16]} UTC.",
            "The implementations called ours, in bold, are jax_s6's; all others are peers. A value is the median of n"
            " samples, with the lower and the upper quartile in parentheses. A ratio to the best peer is the median of"
            " the ratios within each round, and above 1 where ours is better; the best peer is the one with the best"
            " median, of the same precision. The samples are in results.json.",
        )
    )


def best_peers(entries: Sequence[Entry]) -> dict[tuple[Any, str], Entry]:
    """Return the peer with the best median, by case and precision."""
    peers = sorted((entry for entry in entries if entry["peer"]), key=_goodness)
    return {(entry["case"], entry["precision"]): entry for entry in peers}  # the last of several, which is the best


def _goodness(entry: Entry) -> float:
    return entry["value"]["median"] * (1 if entry["higher_is_better"] else -1)


def ratio(entry: Entry, peer: Entry) -> float:
    """Return how many times better an arm is: the median of the ratios within each round, when both saw one machine."""
    pairs = zip(entry["values"], peer["values"], strict=False)
    return statistics.median(a / b if entry["higher_is_better"] else b / a for a, b in pairs)


def ratios(entries: Sequence[Entry]) -> str:
    """Write a table of our arms' ratios to the best peer, with a column per case; nothing if there is no ratio."""
    peers, cases = best_peers(entries), list(dict.fromkeys(entry["case"] for entry in entries))
    found = {(entry["arm"], entry["case"]): entry for entry in entries if not entry["peer"]}
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in found):
        cells = []
        for case in cases:
            entry = found.get((arm, case))
            peer = peers.get((case, entry["precision"])) if entry else None
            cells.append(f"**{ratio(entry, peer):.2f}x** {peer['arm']}" if entry and peer else "")
        rows += [[arm, *cells]] if any(cells) else []
    return table([f"ratio to the best peer, by {axis_label(entries)}", *map(str, cases)], rows) if rows else ""


def values(entries: Sequence[Entry]) -> str:
    """Write a table of all values, best first within a case."""
    rows = []
    for case in dict.fromkeys(entry["case"] for entry in entries):
        for entry in sorted((e for e in entries if e["case"] == case), key=_goodness, reverse=True):
            value, seconds = entry["value"], entry["ready"]["compile_seconds"]
            name = entry["arm"] if entry["peer"] else f"**{entry['arm']}**"
            spread = f"{number(value['median'])} ({number(value['q1'])} to {number(value['q3'])})"
            compiled = f"{seconds:.1f}" if seconds else ""
            rows.append([str(case), name, spread, str(value["n"]), compiled, f"{peak_megabytes(entry):,.0f}"])
    heads = ["implementation", entries[0]["unit"], "n", "compile time, s", "peak memory of the process so far, MB"]
    return table([axis_label(entries), *heads], rows)


def peak_megabytes(entry: Entry) -> float:
    """Return the peak memory of an arm's process until the end of a case."""
    return max(sample["peak_memory"]["host"] for sample in entry["samples"]) / 1e6


def _details(entries: Sequence[Entry]) -> list[str]:
    """Return the texts that arms give in addition to their numbers."""
    texts = []
    for entry in entries:
        text = entry["samples"][-1].get("text") or entry["ready"]["info"].get("text")
        texts += [f"{entry['arm']}, {axis_label([entry])} {entry['case']}:\n\n{text}"] if text else []
    return texts


def number(value: float) -> str:
    """Format a number with at least three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
