"""``results.json``: results in pytest-benchmark's schema, and the comparison of two such files."""

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.harness import Outcome
from jax_s6.errors import InputError

SCHEMA = "5.1.0"
"""The version of pytest-benchmark whose schema this is. A benchmark is a ``question`` in it, in earlier files, too."""


def to_json(outcomes: Sequence[Outcome], options: Mapping[str, Any]) -> dict[str, Any]:
    """Collect everything about a run of the benchmarks."""
    return {
        "machine_info": machine.machine_info(),
        "commit_info": machine.commit_info(),
        "benchmarks": [entry(outcome) for outcome in outcomes if outcome.values],
        "not_run": [
            {"question": o.benchmark.name, "arm": o.arm.name, "case": o.case, "reason": o.not_run}
            for o in outcomes
            if o.not_run is not None
        ],
        "options": dict(options),
        "datetime": datetime.now(UTC).isoformat(),
        "version": SCHEMA,
    }


def entry(outcome: Outcome) -> dict[str, Any]:
    """Describe an arm in a case: pytest-benchmark's statistics of the seconds, and the values in ``extra_info``."""
    benchmark, arm = outcome.benchmark, outcome.arm
    return {
        "group": f"{benchmark.name} {benchmark.axis}={outcome.case}",
        "name": f"{arm.name} {benchmark.axis}={outcome.case}",
        "fullname": f"benchmarks/{benchmark.name}.py::{arm.name}[{outcome.case}]",
        "params": {benchmark.axis: outcome.case},
        "param": str(outcome.case),
        "extra_info": {
            "question": benchmark.name,
            "arm": arm.name,
            "axis": benchmark.axis,
            "case": outcome.case,
            "peer": arm.peer,
            "precision": arm.precision,
            "unit": benchmark.unit,
            "higher_is_better": benchmark.higher_is_better,
            "values": outcome.values,
            "value": spread(outcome.values),
            "samples": outcome.samples,
            "ready": outcome.ready,
            "settings": dict(arm.settings),
            "environment": dict(arm.environment),
        },
        "options": {"disable_gc": False, "timer": "perf_counter", "min_rounds": len(outcome.values), "warmup": True},
        "stats": statistics_of([sample["seconds"] for sample in outcome.samples]),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles, interpolated linearly between the samples, and the number of values."""
    one = [values[0]] * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else one
    return {"median": middle, "q1": low, "q3": high, "iqr": high - low, "n": len(values)}


def statistics_of(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the statistics of the samples' seconds that pytest-benchmark keeps."""
    quartiles = spread(seconds)
    mean, deviation = statistics.fmean(seconds), statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    fence = 1.5 * quartiles["iqr"]
    inside = [x for x in seconds if quartiles["q1"] - fence <= x <= quartiles["q3"] + fence]
    outside, beyond = len(seconds) - len(inside), sum(abs(x - mean) > deviation for x in seconds)
    return {
        **{name: quartiles[name] for name in ("median", "iqr", "q1", "q3")},
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "iqr_outliers": outside,
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{outside}",
        "ld15iqr": min(inside),
        "hd15iqr": max(inside),
        "ops": 1 / mean if mean else 0.0,
        "total": sum(seconds),
        "data": list(seconds),
        "iterations": 1,
    }


def read(path: Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        InputError: It cannot be read, or is not a results file.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        for item in results["benchmarks"]:
            if item["extra_info"]["value"]["median"] <= 0 or not isinstance(item["fullname"], str):
                raise ValueError
        if not isinstance(results["machine_info"]["cpu"], dict):
            raise ValueError
        return results
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give an existing results.json") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path} is not a results.json: give one that python -m benchmarks wrote") from None


class Change(NamedTuple):
    """The change of an arm in a case between two results.

    Attributes:
        name: Benchmark, arm and case.
        factor: New over old; above 1 is better.
        noise: The larger of the two relative inter-quartile ranges.
        verdict: ``faster``, ``slower``, or ``same`` if the change is within the noise.
    """

    name: str
    factor: float
    noise: float
    verdict: str


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Compare each arm and case that both results contain."""
    before, after = ({item["fullname"]: item["extra_info"] for item in side["benchmarks"]} for side in (old, new))
    return [_change(name, before[name], after[name]) for name in after if name in before]


def _change(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    factor = new["value"]["median"] / old["value"]["median"]
    factor = factor if new["higher_is_better"] else 1 / factor
    noise = max(side["value"]["iqr"] / side["value"]["median"] for side in (old, new))
    verdict = "same" if abs(factor - 1) <= noise else "faster" if factor > 1 else "slower"
    return Change(name, factor, noise, verdict)


def regressions(changes: Sequence[Change], threshold: float) -> list[Change]:
    """Return the changes that are slower beyond their noise and by more than the threshold, a fraction."""
    return [change for change in changes if change.verdict == "slower" and change.factor < 1 - threshold]
