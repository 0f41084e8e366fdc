"""Results as a file in pytest-benchmark's schema, and two such files against each other."""

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
"""The version of pytest-benchmark whose files these are."""


def to_json(outcomes: Sequence[Outcome], options: Mapping[str, Any]) -> dict[str, Any]:
    """Collects everything about a run of the suite."""
    return {
        "machine_info": machine.machine_info(),
        "commit_info": machine.commit_info(),
        "benchmarks": [entry(outcome) for outcome in outcomes if outcome.values],
        "not_run": [
            {"question": o.question.name, "arm": o.arm.name, "case": o.case, "reason": o.not_run}
            for o in outcomes
            if o.not_run is not None
        ],
        "options": dict(options),
        "datetime": datetime.now(UTC).isoformat(),
        "version": SCHEMA,
    }


def entry(outcome: Outcome) -> dict[str, Any]:
    """Describes an arm at a case: statistics of seconds as pytest-benchmark has them, values in ``extra_info``."""
    question, arm = outcome.question, outcome.arm
    group = f"{question.name} {question.axis}={outcome.case}"
    return {
        "group": group,
        "name": f"{arm.name} {question.axis}={outcome.case}",
        "fullname": f"benchmarks/{question.name}.py::{arm.name}[{outcome.case}]",
        "params": {question.axis: outcome.case},
        "param": str(outcome.case),
        "extra_info": {
            "question": question.name,
            "arm": arm.name,
            "axis": question.axis,
            "case": outcome.case,
            "peer": arm.peer,
            "precision": arm.precision,
            "unit": question.unit,
            "higher_is_better": question.higher_is_better,
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
    """Median and quartiles."""
    low, middle, high = quartiles(values)
    return {"median": middle, "q1": low, "q3": high, "iqr": high - low, "n": len(values)}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the lower quartile, the median and the upper quartile, linearly between the samples."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def statistics_of(seconds: Sequence[float]) -> dict[str, Any]:
    """The statistics that pytest-benchmark keeps, of a sample's seconds."""
    low, middle, high = quartiles(seconds)
    mean, deviation = statistics.fmean(seconds), statistics.stdev(seconds) if len(seconds) > 1 else 0.0
    fence = 1.5 * (high - low)
    inside = [x for x in seconds if low - fence <= x <= high + fence]
    beyond = sum(abs(x - mean) > deviation for x in seconds)
    return {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": middle,
        "iqr": high - low,
        "q1": low,
        "q3": high,
        "iqr_outliers": len(seconds) - len(inside),
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{len(seconds) - len(inside)}",
        "ld15iqr": min(inside),
        "hd15iqr": max(inside),
        "ops": 1 / mean if mean else 0.0,
        "total": sum(seconds),
        "data": list(seconds),
        "iterations": 1,
    }


def read(path: Path) -> dict[str, Any]:
    """Reads a results file.

    Raises:
        InputError: It cannot be read, or is not one.
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
        raise InputError(f"{path} cannot be read ({error.strerror}): give a results.json of this suite") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path} is not a results.json of this suite: give one that it wrote") from None


class Change(NamedTuple):
    """What became of an arm at a case.

    Attributes:
        name: Question, arm and case.
        factor: New over old, so that above 1 is better.
        noise: The larger relative inter-quartile range of the two.
        verdict: faster, slower, or same where the change is within the noise.
    """

    name: str
    factor: float
    noise: float
    verdict: str


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Compares what both files have."""

    def by_name(results: Mapping[str, Any]) -> dict[str, Any]:
        return {item["fullname"]: item["extra_info"] for item in results["benchmarks"]}

    before, after = by_name(old), by_name(new)
    return [_change(name, before[name], after[name]) for name in after if name in before]


def _change(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    values = [side["value"] for side in (old, new)]
    factor = values[1]["median"] / values[0]["median"]
    factor = factor if new["higher_is_better"] else 1 / factor
    noise = max(value["iqr"] / value["median"] for value in values)
    verdict = "same" if abs(factor - 1) <= noise else "faster" if factor > 1 else "slower"
    return Change(name, factor, noise, verdict)


def regressions(changes: Sequence[Change], threshold: float) -> list[Change]:
    """Returns what got slower beyond its noise and by more than the threshold, a fraction."""
    return [change for change in changes if change.verdict == "slower" and change.factor < 1 - threshold]
