"""``report.md``: ratios to the best peer first, then every figure, then what was not run."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def render(results: Mapping[str, Any], questions: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Writes the report.

    Args:
        results: What ``results.to_json`` made.
        questions: By name, for titles and notes.
        pictures: A question's picture, by its name.
    """
    parts = [_head(results)]
    entries = [item["extra_info"] for item in results["benchmarks"]]
    for name in dict.fromkeys(entry["question"] for entry in entries):
        mine = [entry for entry in entries if entry["question"] == name]
        question = questions.get(name)
        parts.append(f"## {name}" + (f": {question.title}" if question else ""))
        parts += [f"![{name}]({pictures[name]})"] if name in pictures else []
        parts += [table] if (table := ratios(mine)) else []
        parts += [figures(mine), *_details(mine)]
        parts += [question.note] if question and question.note else []
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
    return "\n\n".join(
        (
            "# Benchmarks",
            f"{cpu['brand_raw']}, cores {info['affinity']} ({', '.join(features) or 'no known vector units'}),"
            f" {(info['memory_bytes'] or 0) / 1e9:.0f} GB; JAX device: {device.get('count')} x {device.get('kind')};"
            f" load average at the end {load}; Python {info['python_version']}; {versions};"
            f" environment {info['environment'] or 'plain'}.",
            f"Commit {commit['id'][:12]}{' with changes' if commit['dirty'] else ''}, {results['datetime'][:16]} UTC."
            " Values are medians with the quartiles in parentheses. Ratios are medians of each round's ratio, to the"
            " best peer of the same precision. The raw samples are in results.json.",
        )
    )


def best_peers(entries: Sequence[Entry]) -> dict[tuple[Any, str], Entry]:
    """Returns the peer with the best median, by case and precision."""
    best: dict[tuple[Any, str], Entry] = {}
    for entry in entries:
        key, sign = (entry["case"], entry["precision"]), 1 if entry["higher_is_better"] else -1
        if entry["peer"] and (key not in best or sign * entry["value"]["median"] > sign * best[key]["value"]["median"]):
            best[key] = entry
    return best


def ratio(entry: Entry, peer: Entry) -> float:
    """How many times better an arm is: the median of the ratios within a round, where both saw the same machine."""
    pairs = zip(entry["values"], peer["values"], strict=False)
    found = [a / b if entry["higher_is_better"] else b / a for a, b in pairs]
    return statistics.median(found)


def ratios(entries: Sequence[Entry]) -> str:
    """A table of ours over the best peer, a column a case."""
    peers, cases = best_peers(entries), list(dict.fromkeys(entry["case"] for entry in entries))
    rows = []
    for arm in dict.fromkeys(entry["arm"] for entry in entries if not entry["peer"]):
        cells = []
        for case in cases:
            entry = next((e for e in entries if e["arm"] == arm and e["case"] == case), None)
            peer = peers.get((case, entry["precision"])) if entry else None
            cells.append(f"**{ratio(entry, peer):.2f}x** {peer['arm']}" if entry and peer else "")
        if any(cells):
            rows.append([arm, *cells])
    axis = entries[0]["axis"]
    return table([f"times the best peer, by {axis}", *map(str, cases)], rows) if rows else ""


def figures(entries: Sequence[Entry]) -> str:
    """A table of values, best first within a case."""
    rows = []
    for case in dict.fromkeys(entry["case"] for entry in entries):
        mine = [entry for entry in entries if entry["case"] == case]
        mine.sort(key=lambda e: e["value"]["median"], reverse=mine[0]["higher_is_better"])
        for entry in mine:
            value, ready = entry["value"], entry["ready"]
            peak = max(sample["peak_memory"]["host"] for sample in entry["samples"])
            rows.append(
                [
                    str(case),
                    entry["arm"] if entry["peer"] else f"**{entry['arm']}**",
                    f"{number(value['median'])} ({number(value['q1'])} to {number(value['q3'])})",
                    str(value["n"]),
                    f"{ready['compile_seconds']:.1f}" if ready["compile_seconds"] else "",
                    f"{peak / 1e6:,.0f}",
                ]
            )
    heads = [entries[0]["axis"], "arm", entries[0]["unit"], "n", "compile, s", "peak memory so far, MB"]
    return table(heads, rows)


def _details(entries: Sequence[Entry]) -> list[str]:
    """Texts that arms give beside their numbers."""
    texts = []
    for entry in entries:
        text = entry["samples"][-1].get("text") or entry["ready"]["info"].get("text")
        texts += [f"{entry['arm']}, {entry['axis']} {entry['case']}:\n\n{text}"] if text else []
    return texts


def number(value: float) -> str:
    """Writes three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Writes a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
