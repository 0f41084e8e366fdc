"""What the benchmarks' tests share: benchmarks and results of fake arms."""

import json
from collections.abc import Callable

import pytest

from benchmarks import harness, machine, results
from benchmarks.definitions import Arm, Benchmark
from benchmarks.harness import Outcome
from tests.benchmarks import fake_arm


def make_benchmark(*arms: Arm, **changes) -> Benchmark:
    return Benchmark(**{"name": "toy", "title": "Toy", "arms": arms, "axis": "batch", "cases": (8,), **changes})


def make_outcome(name: str, seconds: list[float], **changes) -> Outcome:
    peer, precision = changes.pop("peer", False), changes.pop("precision", "float32")
    arm = Arm(name, fake_arm.ENTRY, peer=peer, precision=precision)
    samples = [{"seconds": s, "work": 100.0, "peak_memory": {"host": 1_000_000}} for s in seconds]
    ready = {"compile_seconds": 1.5, "info": {}, "losses": [1.0], "num_params": harness.NUM_PARAMS}
    return Outcome(make_benchmark(arm, **changes), arm, 8, ready=ready, samples=samples)


@pytest.fixture
def make_results(monkeypatch) -> Callable[..., dict]:
    """Makes a results file's content of outcomes, without asking for the processor and the devices each time."""
    monkeypatch.setattr(machine, "device", lambda: {"platform": "cpu", "kind": "cpu", "count": 2})
    monkeypatch.setattr(machine, "cpu_info", lambda: {"brand_raw": "Toy", "flags": ["avx2"], "count": 2})
    return lambda *outcomes: json.loads(json.dumps(results.to_json(outcomes, {"rounds": 3})))


@pytest.fixture
def fake_reference(monkeypatch) -> None:
    """Spares the process that computes the reference's losses."""
    monkeypatch.setattr(harness, "reference_losses", lambda batch, kind: [1.0, 0.5])
