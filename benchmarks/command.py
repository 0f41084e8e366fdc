"""The command ``python -m benchmarks [NAME ...]``: what to measure, where the results go, and their comparison."""

import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import harness, plots, report, results
from benchmarks.definitions import Arm, Benchmark
from jax_s6 import cli
from jax_s6.errors import InputError
from jax_s6.runs import files

PROG = "python -m benchmarks"
NAMES = ("train_step", "sweep", "scaling", "epoch", "time_to_accuracy", "predict", "start_up", "roofline", "quality")


@dataclass(frozen=True, kw_only=True)
class Command:
    """Measure jax_s6 and other libraries in turns on this machine, and report how they compare.

    For accelerators that are not there: python -m benchmarks offline --help.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Benchmarks to run; all if none is given. They are train_step, sweep, scaling, epoch, time_to_accuracy, predict,
    start_up, roofline and quality."""
    quick: bool = False
    """Run few implementations, cases and rounds. Takes two minutes on two cores."""
    list: bool = False
    """List the benchmarks, the implementations and what is not installed, and measure nothing."""
    out: Path = Path("runs/benchmarks")
    """Folder for results.json, report.md and one picture per benchmark. Files of an earlier run are replaced."""
    compare: Path | None = None
    """Compare with this results.json. Exit status 1 if something became slower beyond its noise and --threshold."""
    threshold: float = 0.1
    """Loss of speed that counts as a regression, as a fraction, 0 to 1."""
    results: Path | None = None
    """Report on this results.json, or compare it, instead of measuring."""
    arms: tuple[str, ...] = ()
    """Run only the implementations (arms) with one of these names or parts of names."""
    cases: tuple[str, ...] = ()
    """Run only these cases, such as batch sizes, of each benchmark."""
    rounds: int | None = None
    """Number of samples per implementation and case, >= 1. By default each benchmark has its own number."""
    profile: Path | None = None
    """Write profiler traces of the implementations to this folder, after the measurements."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in NAMES]
        if unknown:
            raise InputError(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold must be >= 0 and <= 1, got {self.threshold}")
        if self.rounds is not None and self.rounds < 1:
            raise InputError(f"rounds must be >= 1, got {self.rounds}")


def load(name: str) -> Benchmark:
    """Import the definition of a benchmark."""
    return importlib.import_module(f"benchmarks.questions.{name}").BENCHMARK


def named(arms: Sequence[Arm], names: Sequence[str]) -> list[Arm]:
    """Return the arms with one of the names, or with a part of a name if no arm has that whole name; all if no name."""
    whole = {arm.name for arm in arms}
    return [arm for arm in arms if not names or any(n == arm.name or (n in arm.name and n not in whole) for n in names)]


def select(command: Command) -> list[Benchmark]:
    """Return the benchmarks to run, with the arms, cases and rounds to run.

    Raises:
        InputError: Nothing is left to run.
    """
    selections = []
    for benchmark in map(load, command.names or NAMES):
        cases = benchmark.quick_cases if command.quick else benchmark.cases
        cases = tuple(case for case in cases if not command.cases or str(case) in command.cases)
        arms = tuple(arm for arm in named(benchmark.arms, command.arms) if arm.quick or not command.quick)
        rounds = command.rounds or (benchmark.quick_rounds if command.quick else benchmark.rounds)
        selections.append(replace(benchmark, arms=arms, cases=cases, rounds=rounds))
    if not any(s.arms and s.cases for s in selections):
        given = "arms and cases" + (" together with --quick" if command.quick else "")
        raise InputError(f"{given} leave nothing to run: {PROG} --list shows what there is")
    return selections


def print_list(benchmarks: Sequence[Benchmark]) -> None:
    """Print the benchmarks and their arms."""
    for benchmark in benchmarks:
        print(f"{benchmark.name}: {benchmark.title}")
        print(f"  {benchmark.axis}: {', '.join(map(str, benchmark.cases)) or 'none'}")
        for arm in benchmark.arms:
            where = "" if arm.cases is None else f" ({benchmark.axis} {', '.join(map(str, arm.cases))})"
            reason = harness.missing(arm)
            print(f"  {'peer' if arm.peer else 'ours'}  {arm.name}{where}{f': not run, {reason}' if reason else ''}")


def measure(command: Command, benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    """Run the benchmarks. Results are written after each case, so that an interruption loses one case only."""
    start = time.perf_counter()

    def log(text: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {text}", file=sys.stderr, flush=True)

    if os.getloadavg()[0] > 0.5:
        log(f"warning: the load average is {os.getloadavg()[0]:.1f}: other programs distort the measurements")
    settings = {name: getattr(command, name) for name in ("names", "quick", "arms", "cases", "rounds")}

    def found() -> dict[str, Any]:
        return results.to_json(outcomes, {**settings, "seconds": time.perf_counter() - start})

    outcomes: list[harness.Outcome] = []
    files.make_folder(command.out)  # before minutes are spent
    for benchmark in benchmarks:
        with harness.Session(benchmark, 0.25 if command.quick else 0.5, command.profile, log) as session:
            for case in benchmark.cases:
                outcomes += session.run_case(case)
                files.write_text(command.out / "results.json", json.dumps(found(), indent=1) + "\n")
    for outcome in outcomes:
        if outcome.not_run:
            where = f"{outcome.benchmark.name}, {outcome.benchmark.axis} {outcome.case}"
            log(f"not run: {where}: {outcome.arm.name}: {outcome.not_run}")
    return found()


def write(out: Path, found: dict[str, Any]) -> str:
    """Write the results, the pictures and the report to a folder, and return the report.

    Raises:
        InputError: The folder cannot be written to.
    """
    benchmarks = {name: load(name) for name in NAMES}
    pictures = {}
    files.make_folder(out)
    files.write_text(out / "results.json", json.dumps(found, indent=1) + "\n")
    entries = [item["extra_info"] for item in found["benchmarks"]]
    for name in dict.fromkeys(entry["question"] for entry in entries):
        pictures[name] = f"{name}.png"
        mine = [entry for entry in entries if entry["question"] == name]
        benchmark = benchmarks.get(name)
        title, memory = (benchmark.title, benchmark.memory) if benchmark else (name, False)
        with files.replacing(out / pictures[name]) as part:
            plots.plot(part, title, mine, memory)
    text = report.render(found, benchmarks, pictures)
    files.write_text(out / "report.md", text)
    return text


def print_changes(old: dict[str, Any], new: dict[str, Any], threshold: float) -> bool:
    """Print what became faster or slower, and return whether something is slower by more than the threshold."""
    if old["machine_info"]["cpu"].get("brand_raw") != new["machine_info"]["cpu"].get("brand_raw"):
        print("warning: the two results were measured on different processors", file=sys.stderr)
    changes = results.compare(old, new)
    if not changes:
        raise InputError("compare has nothing to compare: the two results have no arm and case in common")
    for change in sorted(changes, key=lambda change: change.factor):
        print(f"{change.factor:6.2f}x  {change.verdict:6}  (noise {change.noise:.0%})  {change.name}")
    worse = results.regressions(changes, threshold)
    for change in worse:
        print(f"regression: {change.name}: {change.factor:.2f}x, threshold {threshold:.0%}", file=sys.stderr)
    return bool(worse)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command, or ``offline``'s, which has flags of its own."""
    args = sys.argv[1:] if args is None else args
    if list(args[:1]) == ["offline"]:
        return importlib.import_module("benchmarks.offline.command").main(args[1:])  # it imports JAX, which takes time
    command = cli.parse(Command, prog=PROG, args=args)
    old = None if command.compare is None else results.read(command.compare)
    if command.results is not None:
        new = results.read(command.results)
    else:
        benchmarks = select(command)
        if command.list:
            return print_list(benchmarks)
        new = measure(command, benchmarks)
    if command.results is None or old is None:
        print(write(command.out, new))
        print(f"Results are in {command.out}.")
    if old is not None and print_changes(old, new, command.threshold):
        raise SystemExit(1)
