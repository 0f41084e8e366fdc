"""Run the arms of a benchmark: start their processes, check them, and measure them in turns.

An arm has one process per benchmark, because threads, devices and precision are settings of a process. In each case
(a batch size, or a number of lanes) every arm prepares and warms up. It then gives one sample per round, in turns
(A B C A B C ...), so that a machine whose speed drifts treats all arms alike.
"""

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.definitions import Arm, Benchmark
from benchmarks.process import Worker, WorkerError

NUM_PARAMS = 11_952
# Tolerances of a batch's loss before a training step, and after it, relative to the same network in float64. The
# second is wide because PyTorch's batch normalisation in channels_last sums naively in float32: the first layer is off
# by 6e-5 and this loss by 1e-3 (all other float32 arms: under 1e-6). A step that is 1 % too long changes it by 2e-3.
# In bfloat16 it is wider because rounding changes which ReLUs are active: over 12 batches of 64, the loss after the
# step, which lowers it by 20 %, was off by 0.7 % in the median and by 2.3 % at most.
# On GPU, JAX and PyTorch multiply float32 numbers in TF32, whose 10 bits lie in between (0.3 % in the second loss on an
# H100).
TOLERANCES = {"float32": (1e-4, 2e-3), "tf32": (5e-4, 1e-2), "bf16": (5e-3, 3e-2)}
REFERENCE = "benchmarks.arms.lax:reference"
# Environment of the peers' processes: glibc keeps freed memory, as the allocators do that PyTorch's tuning guide
# advises. Otherwise it returns activations to the kernel after each step (in some processes from batch 64 on, in all
# from 256), and PyTorch trains at half its speed or less. Our buffers live for a whole epoch; our arms run without it,
# as they do for users.
PEERS_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


@dataclass
class Outcome:
    """The samples of an arm in a case, or the reason why there are none."""

    benchmark: Benchmark
    arm: Arm
    case: Any
    ready: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    not_run: str | None = None

    @property
    def values(self) -> list[float]:
        """The samples in the benchmark's unit; none if the arm failed half-way."""
        if self.not_run is not None:
            return []
        if self.benchmark.value == "rate":
            return [sample["work"] / sample["seconds"] for sample in self.samples]
        return [sample[self.benchmark.value] for sample in self.samples]


class Session:
    """The processes of a benchmark's arms."""

    def __init__(
        self,
        benchmark: Benchmark,
        seconds: float = 0.5,
        profile: Path | None = None,
        report: Callable[[str], None] = lambda text: None,
    ):
        """Start no process yet.

        Args:
            benchmark: What to measure.
            seconds: Length of a sample. Shorter work is repeated until it takes about this long.
            profile: Folder for profiler traces, which are taken after the samples; None for no traces.
            report: Is called with each message about progress.
        """
        self.benchmark, self.seconds, self.profile, self.report = benchmark, seconds, profile, report
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self._workers.values():
            worker.close()

    def run_case(self, case: Any) -> list[Outcome]:
        """Prepare and check each arm, then measure them in turns."""
        benchmark = self.benchmark
        where = f"{benchmark.name}, {benchmark.axis} {case}"
        batch = case if benchmark.axis == "batch" else 64
        expected = reference_losses(batch, benchmark.check) if benchmark.check else None
        outcomes = [Outcome(benchmark, arm, case) for arm in benchmark.arms if arm.cases is None or case in arm.cases]
        for outcome in outcomes:
            self.report(f"{where}: preparing {outcome.arm.name}")
            outcome.not_run = missing(outcome.arm)
            self._attempt(outcome, functools.partial(self._prepare, outcome, expected))
        for number in range(benchmark.rounds):
            self.report(f"{where}: round {number + 1} of {benchmark.rounds}")
            for outcome in outcomes:
                self._attempt(outcome, lambda worker, outcome=outcome: outcome.samples.append(worker.ask("sample")))
        if self.profile is not None:
            for outcome in outcomes:
                folder = self.profile / benchmark.name / f"{case} {outcome.arm.name}".replace(" ", "-")
                self._attempt(outcome, lambda worker, folder=folder: worker.ask("profile", folder=str(folder)))
        return outcomes

    def _prepare(self, outcome: Outcome, expected: Sequence[float] | None, worker: Worker) -> None:
        arguments = {**outcome.arm.settings, self.benchmark.axis: outcome.case}
        outcome.ready = ready = worker.ask("prepare", arguments=arguments, seconds=self.seconds)
        if expected is not None or ready["num_params"] is not None:
            check_size(ready)
        if expected is not None:
            precision = outcome.arm.precision
            tf32 = precision == "float32" and ready["accelerated"]
            check_losses(ready, expected, TOLERANCES["tf32" if tf32 else precision])

    def _attempt(self, outcome: Outcome, action: Callable[[Worker], Any]) -> None:
        """Do something with an arm's process. If it fails, only this arm stops; its next case gets a new process."""
        if outcome.not_run is not None:
            return
        arm = outcome.arm
        if arm.name not in self._workers:
            environment = {**(PEERS_ENVIRONMENT if arm.peer else {}), **arm.environment}
            self._workers[arm.name] = Worker(arm.entry, environment)
        try:
            action(self._workers[arm.name])
        except WorkerError as error:
            outcome.not_run = str(error)
            self._workers.pop(arm.name).close()


@functools.cache
def reference_losses(batch: int, kind: str) -> list[float]:
    """Compute in float64 the losses that every arm must have, for a batch size and a benchmark's ``check``."""
    worker = Worker(REFERENCE, {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"})
    try:
        return worker.ask("prepare", arguments={"batch": batch, "kind": kind}, seconds=0.0)["losses"]
    finally:
        worker.close()


def missing(arm: Arm) -> str | None:
    """Return what an arm lacks on this machine, and how to install it; None if nothing."""
    if arm.cuda and not machine.has_nvidia_gpu():
        return "it needs an NVIDIA GPU"
    absent = [package for package in arm.requires if importlib.util.find_spec(package) is None]
    return f"{' and '.join(absent)} not installed: pip install {' '.join(absent)}" if absent else None


def check_size(ready: Mapping[str, Any]) -> None:
    """Raise WorkerError unless an arm's network has the reference's number of parameters."""
    if ready["num_params"] != NUM_PARAMS:
        raise WorkerError(f"check failed: {ready['num_params']} parameters, not {NUM_PARAMS}")


def check_losses(ready: Mapping[str, Any], expected: Sequence[float], tolerances: Sequence[float]) -> None:
    """Compare an arm's losses with the reference's.

    Args:
        ready: Its ``losses`` are those of the reference's batch and weights, before a step of SGD with momentum and
            after it. An arm that does not train has only the first.
        expected: The two losses of the reference.
        tolerances: The largest relative differences.

    Raises:
        WorkerError: They differ, or the arm has no loss.
    """
    if not ready["losses"]:
        raise WorkerError("check failed: the arm returned no loss")
    for got, want, tolerance in zip(ready["losses"], expected, tolerances, strict=False):
        if not abs(got - want) <= tolerance * abs(want):
            raise WorkerError(f"check failed: loss {got:.6g}, not {want:.6g} within {tolerance:g}")
