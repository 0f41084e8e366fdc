"""Arms against each other: processes that take turns, checked before they are timed.

An arm runs in a process of its own, started once a question: threads, devices and precision are settings of a process,
and so its imports are paid once. For each case (a batch size, a number of lanes) every arm prepares and warms up, then
gives one sample a round, in turns (A B C A B C ...), so that a machine whose speed drifts treats all alike.
"""

import functools
import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.process import Worker, WorkerError

NUM_PARAMS = 11_952
# Of the loss of a batch before a training step, and after it, relative to the same network in float64. The second is
# wide for PyTorch's batch normalisation in channels_last, whose naive float32 sums are off by 6e-5 in the first layer
# and by 1e-3 in this loss (all other float32 arms: under 1e-6). A step of 1 % more or less changes it by 2e-3. In
# bfloat16 it is wider because rounding flips ReLUs: over 12 batches of 64 the loss after the step, which lowers it by
# 20 %, was off by 0.7 % in the median and 2.3 % at most, before and after our own arm was rewritten.
# On GPU, JAX and PyTorch multiply float32 in TF32, whose 10 bits lie between (0.3 % in the second loss on an H100).
TOLERANCES = {"float32": (1e-4, 2e-3), "tf32": (5e-4, 1e-2), "bf16": (5e-3, 3e-2)}
REFERENCE = "benchmarks.arms.lax:reference"
# Of the peers' processes: glibc keeps freed memory, as the allocators do that PyTorch's tuning guide advises. Otherwise
# it returns activations to the kernel after each step, in some processes from batch 64 on and in all from 256, and
# PyTorch trains at half its speed or less. Ours, whose buffers live for an epoch, run as users run them, without it.
PEERS_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


@dataclass(frozen=True)
class Arm:
    """One way of doing a question's work.

    Attributes:
        name: As the tables show it.
        entry: ``module:function`` that returns a ``worker.Task``.
        settings: Arguments of the entry, beside the case.
        requires: The package that brings each module that it needs.
        peer: Whether it is somebody else's: ours are compared with the best of these.
        precision: Ours are compared with peers of the same precision; the loss's tolerance goes by it.
        environment: Variables of its process.
        cases: At which of the question's it runs; None for all.
        cuda: Whether it needs an NVIDIA GPU.
        quick: Whether it runs with ``--quick``.
    """

    name: str
    entry: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    peer: bool = False
    precision: str = "float32"
    environment: Mapping[str, str] = field(default_factory=dict)
    cases: tuple[Any, ...] | None = None
    cuda: bool = False
    quick: bool = False


@dataclass(frozen=True)
class Question:
    """What is compared.

    Attributes:
        name: As the command line has it.
        title: In a sentence.
        arms: The ways.
        axis: The argument of the arms that the cases vary.
        cases: Its values.
        quick_cases: Those of ``--quick``; none if the question has no short form.
        unit: Of a value.
        value: Which entry of a sample is the value; ``rate`` for work over seconds.
        higher_is_better: Of values.
        rounds: Samples an arm and case.
        quick_rounds: The same with ``--quick``.
        check: Which losses arms must have, beside the network's parameters, before they are timed: ``train`` or
            ``predict``; None where they take no step of their own on given weights, which leaves the parameters.
        note: What a reader of the numbers needs to know.
        memory: Whether its picture shows peak memory, too.
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    axis: str
    cases: tuple[Any, ...]
    quick_cases: tuple[Any, ...] = ()
    unit: str = "images/s"
    value: str = "rate"
    higher_is_better: bool = True
    rounds: int = 7
    quick_rounds: int = 3
    check: str | None = "train"
    note: str = ""
    memory: bool = False


@dataclass
class Outcome:
    """What came of an arm at a case: samples, or the reason why there are none."""

    question: Question
    arm: Arm
    case: Any
    ready: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    not_run: str | None = None

    @property
    def values(self) -> list[float]:
        """The samples in the question's unit; none if the arm stopped half-way."""
        if self.not_run is not None:
            return []
        if self.question.value == "rate":
            return [sample["work"] / sample["seconds"] for sample in self.samples]
        return [sample[self.question.value] for sample in self.samples]


@dataclass(frozen=True)
class Options:
    """How to ask.

    Attributes:
        rounds: Samples an arm and case; the question's own number if None.
        seconds: A sample's length: short work is repeated until it takes about this.
        profile: A folder for a profiler's trace of each of our arms, taken after the timing.
        say: Is told of progress.
    """

    rounds: int
    seconds: float = 0.5
    profile: Path | None = None
    say: Callable[[str], None] = lambda text: None


class Session:
    """The processes of a question's arms."""

    def __init__(self, question: Question, options: Options):
        """Starts nothing yet."""
        self.question, self.options = question, options
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self._workers.values():
            worker.close()

    def run_case(self, arms: Sequence[Arm], case: Any) -> list[Outcome]:
        """Prepares and checks each arm, then samples them in turns."""
        question, options = self.question, self.options
        where = f"{question.name}, {question.axis} {case}"
        batch = case if question.axis == "batch" else 64
        expected = reference_losses(batch, question.check) if question.check else None
        outcomes = [Outcome(question, arm, case) for arm in arms if arm.cases is None or case in arm.cases]
        for outcome in outcomes:
            options.say(f"{where}: preparing {outcome.arm.name}")
            outcome.not_run = missing(outcome.arm)
            self._prepare(outcome, expected)
        for number in range(options.rounds):
            options.say(f"{where}: round {number + 1} of {options.rounds}")
            for outcome in outcomes:
                self._attempt(outcome, lambda worker, outcome=outcome: outcome.samples.append(worker.ask("sample")))
        if options.profile is not None:
            for outcome in outcomes:
                folder = options.profile / question.name / f"{case} {outcome.arm.name}".replace(" ", "-")
                self._attempt(outcome, lambda worker, folder=folder: worker.ask("profile", folder=str(folder)))
        return outcomes

    def _prepare(self, outcome: Outcome, expected: Sequence[float] | None) -> None:
        arguments = {**outcome.arm.settings, self.question.axis: outcome.case}

        def action(worker: Worker) -> None:
            outcome.ready = worker.ask("prepare", arguments=arguments, seconds=self.options.seconds)
            if expected is not None or outcome.ready["num_params"] is not None:
                check_size(outcome.ready)
            if expected is not None:
                precision = outcome.arm.precision
                tf32 = precision == "float32" and outcome.ready["accelerated"]
                check_losses(outcome.ready, expected, TOLERANCES["tf32" if tf32 else precision])

        self._attempt(outcome, action)

    def _attempt(self, outcome: Outcome, action: Callable[[Worker], Any]) -> None:
        """Does something with an arm's process; a failure is the arm's, and the next case begins with a new process."""
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
    """Computes the losses that every arm must have, in float64, for a batch size and a question's ``check``."""
    worker = Worker(REFERENCE, {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"})
    try:
        return worker.ask("prepare", arguments={"batch": batch, "kind": kind}, seconds=0.0)["losses"]
    finally:
        worker.close()


def missing(arm: Arm) -> str | None:
    """Says what to install for an arm, or what it needs, or None."""
    if arm.cuda and not has_nvidia_gpu():
        return "it needs an NVIDIA GPU"
    absent = [package for module, package in arm.requires.items() if importlib.util.find_spec(module) is None]
    return f"{' and '.join(absent)} not installed: pip install {' '.join(absent)}" if absent else None


def has_nvidia_gpu() -> bool:
    """Whether there is one, as far as can be told without a framework."""
    return shutil.which("nvidia-smi") is not None


def check_size(ready: Mapping[str, Any]) -> None:
    """Raises WorkerError unless an arm's network, ``num_params``, has as many parameters as the reference's."""
    if ready["num_params"] != NUM_PARAMS:
        raise WorkerError(f"check failed: {ready['num_params']} parameters, not {NUM_PARAMS}")


def check_losses(ready: Mapping[str, Any], expected: Sequence[float], tolerances: Sequence[float]) -> None:
    """Compares an arm's losses with the reference's.

    Args:
        ready: ``losses``: of the reference's batch and weights, before a step of SGD with momentum and after it. An arm
            that does not train gives the first only.
        expected: The reference's two losses.
        tolerances: Of their relative differences.

    Raises:
        WorkerError: They differ.
    """
    if not ready["losses"]:
        raise WorkerError("check failed: it gave no loss")
    for got, want, tolerance in zip(ready["losses"], expected, tolerances, strict=False):
        if not abs(got - want) <= tolerance * abs(want):
            raise WorkerError(f"check failed: loss {got:.6g}, not {want:.6g} within {tolerance:g}")
