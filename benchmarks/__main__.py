"""The suite's command: ``python -m benchmarks [NAME ...]``."""

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import harness, plots, report, results
from jax_s6 import cli
from jax_s6.errors import InputError

PROG = "python -m benchmarks"
NAMES = ("train_step", "sweep", "scaling", "epoch", "time_to_accuracy", "predict", "start_up", "roofline", "quality")


@dataclass(frozen=True, kw_only=True)
class Command:
    """Compare throughput with what people use today, on the machine at hand."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Questions, all if none: train_step sweep scaling epoch time_to_accuracy predict start_up roofline quality."""
    quick: bool = False
    """Few arms, cases and rounds: two minutes on two cores."""
    list: bool = False
    """List questions and arms, and what is not installed; measure nothing."""
    out: Path = Path("runs/benchmarks")
    """Where results.json, report.md and a picture a question go; those of an earlier run are replaced."""
    compare: Path | None = None
    """A results.json to compare with: exit status 1 if something got slower beyond its noise and the threshold."""
    threshold: float = 0.1
    """The loss of speed that is a regression, a fraction, 0 to 1."""
    results: Path | None = None
    """Report on, and compare, this results.json instead of measuring."""
    arms: tuple[str, ...] = ()
    """Only arms with one of these names, or parts of names."""
    cases: tuple[str, ...] = ()
    """Only these values of the questions' axes."""
    rounds: int | None = None
    """Samples an arm and case, >= 1; the question's own number if not given."""
    profile: Path | None = None
    """A folder for profiler traces of every arm that can be traced, taken after the timing."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in NAMES]
        if unknown:
            raise InputError(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold must be >= 0 and <= 1, got {self.threshold}")
        if self.rounds is not None and self.rounds < 1:
            raise InputError(f"rounds must be >= 1, got {self.rounds}")


def load(name: str) -> harness.Question:
    """Imports a question's file."""
    return importlib.import_module(f"benchmarks.questions.{name}").QUESTION


@dataclass(frozen=True)
class Selection:
    """What of a question is asked."""

    question: harness.Question
    arms: tuple[harness.Arm, ...]
    cases: tuple[Any, ...]
    rounds: int


def named(arms: Sequence[harness.Arm], names: Sequence[str]) -> list[harness.Arm]:
    """Chooses arms by their names, or by parts that are no arm's whole name; all if no names are given."""
    whole = {arm.name for arm in arms}
    return [arm for arm in arms if not names or any(n == arm.name or (n in arm.name and n not in whole) for n in names)]


def select(command: Command) -> list[Selection]:
    """Chooses questions, arms, cases and rounds.

    Raises:
        InputError: Nothing is left.
    """
    selections = []
    for name in command.names or NAMES:
        question = load(name)
        cases = question.quick_cases if command.quick else question.cases
        cases = tuple(case for case in cases if not command.cases or str(case) in command.cases)
        arms = tuple(arm for arm in named(question.arms, command.arms) if arm.quick or not command.quick)
        rounds = command.rounds or (question.quick_rounds if command.quick else question.rounds)
        selections.append(Selection(question, arms, cases, rounds))
    if not any(s.arms and s.cases for s in selections):
        given = "arms and cases" + (" together with --quick" if command.quick else "")
        raise InputError(f"{given} leave nothing to run: {PROG} --list shows what there is")
    return selections


def print_list(selections: Sequence[Selection]) -> None:
    """Prints questions and arms."""
    for selection in selections:
        question = selection.question
        cases = ", ".join(map(str, selection.cases))
        print(f"{question.name}: {question.title}\n  {question.axis}: {cases or 'none (no short form)'}")
        for arm in selection.arms:
            where = "" if arm.cases is None else f" ({question.axis} {', '.join(map(str, arm.cases))})"
            reason = harness.missing(arm)
            print(f"  {'peer' if arm.peer else 'ours'}  {arm.name}{where}{f': not run, {reason}' if reason else ''}")


def measure(command: Command, selections: Sequence[Selection]) -> dict[str, Any]:
    """Asks the questions, and keeps what is found after each case, so that a stop loses one."""
    start = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {text}", file=sys.stderr, flush=True)

    if os.getloadavg()[0] > 0.5:
        say(f"warning: the load average is {os.getloadavg()[0]:.1f}: other work falsifies what is measured")
    settings = {name: getattr(command, name) for name in ("names", "quick", "arms", "cases", "rounds")}

    def found() -> dict[str, Any]:
        return results.to_json(outcomes, {**settings, "seconds": time.perf_counter() - start})

    outcomes: list[harness.Outcome] = []
    # Before minutes are spent; an earlier run's results stay until there are some.
    with said_in_a_sentence(command.out):
        command.out.mkdir(parents=True, exist_ok=True)
        part_of(command.out).touch()
    for selection in selections:
        options = harness.Options(selection.rounds, 0.25 if command.quick else 0.5, command.profile, say)
        with harness.Session(selection.question, options) as session:
            for case in selection.cases:
                outcomes += session.run_case(selection.arms, case)
                write_results(command.out, found())
    for outcome in outcomes:
        if outcome.not_run:
            where = f"{outcome.question.name}, {outcome.question.axis} {outcome.case}"
            say(f"not run: {where}: {outcome.arm.name}: {outcome.not_run}")
    return found()


def write_results(out: Path, found: dict[str, Any]) -> None:
    """Writes results.json into a folder.

    Raises:
        InputError: It cannot be written.
    """
    with said_in_a_sentence(out):
        out.mkdir(parents=True, exist_ok=True)
        part = part_of(out)
        part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        part.replace(out / "results.json")


def part_of(out: Path) -> Path:
    """Returns the place of results.json while it is written."""
    return out / "results.json.part"


@contextlib.contextmanager
def said_in_a_sentence(out: Path) -> Iterator[None]:
    """Makes an InputError of an OSError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"out {out} cannot be written ({error.strerror}): give another folder") from None


def write(out: Path, found: dict[str, Any]) -> str:
    """Writes results, pictures and the report into a folder; returns the report.

    Raises:
        InputError: The folder cannot be written.
    """
    questions = {name: load(name) for name in NAMES}
    pictures = {}
    write_results(out, found)
    with said_in_a_sentence(out):
        entries = [item["extra_info"] for item in found["benchmarks"]]
        for name in dict.fromkeys(entry["question"] for entry in entries):
            pictures[name] = f"{name}.png"
            mine = [entry for entry in entries if entry["question"] == name]
            question = questions.get(name)
            title, memory = (question.title, question.memory) if question else (name, False)
            plots.plot(out / pictures[name], title, mine, memory)
        text = report.render(found, questions, pictures)
        (out / "report.md").write_text(text, encoding="utf-8")
        return text


def print_changes(old: dict[str, Any], new: dict[str, Any], threshold: float) -> bool:
    """Prints what got faster or slower; returns whether something got worse by more than the threshold."""
    if old["machine_info"]["cpu"].get("brand_raw") != new["machine_info"]["cpu"].get("brand_raw"):
        print("warning: the results are of different processors", file=sys.stderr)
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
    """Runs the command."""
    command = cli.parse(Command, prog=PROG, args=args)
    old = None if command.compare is None else results.read(command.compare)
    if command.results is not None:
        new = results.read(command.results)
    else:
        selections = select(command)
        if command.list:
            return print_list(selections)
        new = measure(command, selections)
    if command.results is None or old is None:
        print(write(command.out, new))
        print(f"results are in {command.out}")
    if old is not None and print_changes(old, new, command.threshold):
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run(main)
