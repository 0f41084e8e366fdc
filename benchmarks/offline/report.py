"""``report.md`` of the estimates: one table, and the ten most expensive operations of each arm."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.offline.targets import TARGETS
from benchmarks.report import number, table

Estimate = Mapping[str, Any]
"""An entry of ``estimates`` in ``results.json``: ``target``, ``arm``, ``peer``, the fields of ``programs.Case``, what
``worker.estimate`` returns, ``temporary_bytes``, ``compile_seconds``, ``hlo`` (a file's name or None), ``commit``, and
``measured`` (see ``measured.rate``)."""

HEADS = (
    *("target", "implementation", "lanes", "batch size", "precision", "estimate per image", "kernels per step"),
    *("estimated bound, images/s", "measured, images/s", "measured / bound", "temporary memory, MB"),
    "compile time, s",
)
INTRODUCTION = """# Estimates for accelerators that are not there

Every number below is an estimate from a compiled program, except for those under "measured", and compile times. The
compilers compiled a training epoch of 60,000 images without augmentation and dropout for described devices; nothing ran
on them. The implementations in bold are jax_s6's, all others are peers. An image that several networks (lanes) train on
counts once per network.

- On a TPU the estimate is the clock cycles that the compiler expects of the operations of one training step, one after
  another. On a GPU it is the bytes that its kernels read and write, as if no kernel found any in the cache.
- The bound is the speed that follows if the device does nothing else: it does not wait, and reaches its full bandwidth
  (GPU) or the compiler's expectation (TPU). How near a program comes to it, only a measurement can show. On a GPU that
  is there, the compiler would also try several kernels and keep the fastest, so that the program may differ.
- Ours gather each lane's own images, uint8, by a permutation. All lanes of a peer share normalised float32 batches.
- What happens once per epoch is not counted, such as drawing the order of the images.
- Temporary memory is what the compiled program reserves besides its arguments and results."""


def render(found: Mapping[str, Any], picture: str) -> str:
    """Write the report.

    Args:
        found: The content of ``results.json``.
        picture: The file name of the picture.
    """
    estimates, versions = found["estimates"], found["versions"]
    parts = [
        INTRODUCTION,
        "\n".join(f"- {TARGETS[name].title}: {TARGETS[name].source}." for name in _targets(estimates)),
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}. Compiled from"
        f" {_commits(estimates) or 'nothing'}; {found['datetime'][:16]} UTC.",
    ]
    if estimates:
        parts += [f"![estimated bounds]({picture})", summary(estimates), "## The most expensive operations"]
        parts += [operations(estimate) for estimate in estimates]
    if found["not_run"]:
        parts.append("## Not run")
        parts.append("\n".join(f"- {x['what']}: not run: {x['reason']}" for x in found["not_run"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _targets(estimates: Sequence[Estimate]) -> list[str]:
    return list(dict.fromkeys(estimate["target"] for estimate in estimates))


def _commits(estimates: Sequence[Estimate]) -> str:
    commits = (estimate["commit"] for estimate in estimates)
    names = [f"commit {commit['id'][:12]}{' with changes' if commit['dirty'] else ''}" for commit in commits]
    return ", ".join(dict.fromkeys(names))


def label(estimate: Estimate) -> str:
    """Name an arm and its case."""
    lanes, batch, precision = estimate["lanes"], estimate["batch"], estimate["precision"]
    return f"{estimate['arm']}, {lanes} {'lane' if lanes == 1 else 'lanes'}, batch size {batch}, {precision}"


def summary(estimates: Sequence[Estimate]) -> str:
    """Write the table of all estimates, the fastest first within a target and case."""
    keys = ("lanes", "batch", "precision")
    order = _targets(estimates)
    rows = sorted(
        estimates,
        key=lambda e: (order.index(e["target"]), *(e[key] for key in keys[:2]), e["precision"] != "float32", -_rate(e)),
    )
    return table(HEADS, [_row(estimate) for estimate in rows])


def _rate(estimate: Estimate) -> float:
    return estimate["images_per_second"]


def _row(estimate: Estimate) -> list[str]:
    measured, kernels = estimate["measured"], estimate["kernels_per_step"]
    rate, share = "", ""
    if measured:
        middle, low, high = (number(measured[name]) for name in ("median", "q1", "q3"))
        rate = f"{middle} ({low} to {high}; n = {measured['n']})"
        share = f"{measured['median'] / _rate(estimate):.0%}"
    return [
        TARGETS[estimate["target"]].title,
        estimate["arm"] if estimate["peer"] else f"**{estimate['arm']}**",
        *(str(estimate[key]) for key in ("lanes", "batch", "precision")),
        _amount(estimate["amount_per_image"], estimate["unit"]),
        "" if kernels is None else str(kernels),
        rounded(_rate(estimate)),
        rate,
        share,
        f"{estimate['temporary_bytes'] / 1e6:,.1f}",
        f"{estimate['compile_seconds']:.1f}",
    ]


def rounded(value: float) -> str:
    """Format a bound with three digits, as it is no more certain."""
    return f"{float(f'{value:.3g}'):,.0f}"


def _amount(amount: float, unit: str) -> str:
    return f"{amount:,.0f} cycles" if unit == "cycles" else f"{amount / 1e6:,.2f} MB"


def operations(estimate: Estimate) -> str:
    """Write what one training step's passes cost, and its ten most expensive operations."""
    whole, heads = estimate["amount_per_step"], ("operation", "layer", "direction", "estimate per step", "share")
    rows = [
        [x["name"], x["layer"], x["direction"], _amount(x["amount"], estimate["unit"]), f"{x['amount'] / whole:.1%}"]
        for x in estimate["operations"]
    ]
    passes = [f"{name} {_share(estimate, 'direction', name):.0%}" for name in ("forwards", "backwards", "other")]
    layers = list(dict.fromkeys(part["layer"].split("/")[0] for part in estimate["parts"]))
    blocks = [f"{name} {_share(estimate, 'layer', name):.0%}" for name in layers]
    return "\n\n".join(
        (
            f"### {TARGETS[estimate['target']].title}: {label(estimate)}",
            f"By direction: {', '.join(passes)}. By layer: {', '.join(blocks)}.",
            table(heads, rows),
        )
    )


def _share(estimate: Estimate, key: str, name: str) -> float:
    mine = [part["amount"] for part in estimate["parts"] if part[key].split("/")[0] == name]
    return sum(mine) / estimate["amount_per_step"]
