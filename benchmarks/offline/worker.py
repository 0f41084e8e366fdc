"""Compile one arm for a described device and estimate its speed. Runs in the process that ``benchmarks.worker`` is.

A target has one such process, because the compilers' flags are read when JAX starts.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks.offline import estimates, programs
from benchmarks.offline.targets import TARGETS
from benchmarks.worker import Task

ENTRY = "benchmarks.offline.worker:compile_arm"


def compile_arm(*, target: str, arm: str, hlo: str | None = None, **case: Any) -> Task:
    """Compile an arm's training epoch and return a task that has nothing to run, with the estimate as its ``info``.

    Args:
        target: The name of the described device.
        arm: The name of the arm.
        hlo: A file for the compiled program's text, or None.
        **case: The fields of ``programs.Case``.
    """
    what = programs.Case(**case)
    chosen = next(found for found in programs.ARMS if found.name == arm)
    device = TARGETS[target].describe()
    start = time.perf_counter()
    compiled = chosen.lower(device, TARGETS[target].platform, what).compile()
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    if hlo is not None:
        Path(hlo).write_text(text)
    info = {**estimate(target, what, text), "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes}
    return Task(lambda n: None, 0, compile_seconds=seconds, repeatable=False, info=info)


def estimate(target: str, case: programs.Case, text: str) -> dict[str, Any]:
    """Return the estimate of a compiled program: see ``report.Estimate``, of which these are some entries."""
    device = TARGETS[target]
    measure = estimates.tpu_cycles if device.unit == "cycles" else estimates.gpu_bytes
    costs = estimates.step_costs(estimates.parse(text), case.steps, measure)
    amount, kernels = estimates.total(costs), sum(cost.times for cost in costs)
    if not costs:
        raise ValueError("the compiled program has no loop whose cost can be read")
    parts: dict[tuple[str, str], float] = {}
    for cost in costs:
        parts[cost.layer, cost.direction] = parts.get((cost.layer, cost.direction), 0.0) + cost.amount
    largest = sorted(costs, key=lambda cost: -cost.amount)[:10]
    return {
        "unit": device.unit,
        "amount_per_step": amount,
        "amount_per_image": amount / (case.lanes * case.batch),
        "kernels_per_step": kernels if device.unit == "bytes" else None,
        "images_per_second": case.lanes * case.batch / device.seconds(amount, kernels),
        "operations": [cost._asdict() for cost in largest],
        "parts": [{"layer": k[0], "direction": k[1], "amount": v} for k, v in sorted(parts.items())],
    }
