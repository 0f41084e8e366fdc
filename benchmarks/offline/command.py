"""The command ``python -m benchmarks offline``: what to compile, where the estimates go, and what was not compiled."""

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks import machine
from benchmarks.offline import measured, picture, programs, report
from benchmarks.offline.targets import TARGETS, Target, TargetName
from benchmarks.offline.worker import ENTRY
from benchmarks.process import Worker, WorkerError
from jax_s6 import cli
from jax_s6.errors import InputError
from jax_s6.runs import files

PROG = "python -m benchmarks offline"
PICTURE = "offline.png"
PACKAGES = ("jax", "jaxlib", "flax", "libtpu", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12")


@dataclass(frozen=True, kw_only=True)
class Command:
    """Estimate the training speed on accelerators that are not there, from what their compilers make of each program.

    Every number is an estimate, and none is a measurement. On a TPU it is from the clock cycles that the compiler
    expects, on a GPU from the bytes that the kernels move. Install the compilers with pip install -e '.[offline]'.
    """

    targets: tuple[TargetName, ...] = ("v5e", "h100")
    """Devices to compile for: TPU v5e, TPU v6e, NVIDIA H100."""
    lanes: tuple[int, ...] = (1, 8)
    """Numbers of networks trained at once, each >= 1."""
    batch: tuple[int, ...] = (64,)
    """Batch sizes, each >= 2 and <= 60000."""
    precision: tuple[Literal["float32", "bf16"], ...] = ("float32",)
    """Formats of the numbers that convolutions multiply. A TPU multiplies float32 numbers in bf16, a GPU in TF32."""
    arms: tuple[str, ...] = ()
    """Compile only the implementations (arms) with one of these parts of names."""
    limit: float = 600.0
    """Seconds after which the compilation of an implementation is given up, > 0."""
    hlo: Path | None = None
    """Folder for the text of each compiled program, from which its estimate can be checked."""
    out: Path = Path("runs/offline")
    """Folder for results.json, report.md and offline.png. Files of an earlier run are replaced."""
    add: bool = False
    """Keep the estimates that --out already holds, except those that are made again."""

    def __post_init__(self) -> None:
        for name, low, high in (("lanes", 1, 100_000), ("batch", 2, 60_000)):
            wrong = [value for value in getattr(self, name) if not low <= value <= high]
            if wrong:
                raise InputError(f"{name} must be >= {low} and <= {high}, got {wrong[0]}")
        empty = [name for name in ("targets", "lanes", "batch", "precision") if not getattr(self, name)]
        if empty:
            raise InputError(f"{empty[0]} needs at least one value")
        if not self.limit > 0:
            raise InputError(f"limit must be > 0, got {self.limit}")
        if not self.chosen():
            names = ", ".join(f"{arm.name!r} ({', '.join(arm.precisions)})" for arm in programs.ARMS)
            raise InputError(f"arms and precision leave nothing to compile: there are {names}")

    def chosen(self) -> list[programs.Arm]:
        """Return the arms to compile."""
        arms = [arm for arm in programs.ARMS if not self.arms or any(part in arm.name for part in self.arms)]
        return [arm for arm in arms if set(arm.precisions) & set(self.precision)]


class Job(NamedTuple):
    """One arm in one case."""

    target: Target
    arm: programs.Arm
    case: programs.Case

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"{self.target.title}: {report.label({'arm': self.arm.name, **self.case._asdict()})}"

    @property
    def file_name(self) -> str:
        """The name of the file of its compiled program."""
        arm = self.arm.name.replace(", ", "-").replace(" ", "-")
        return f"{self.target.name}-{arm}-{self.case.lanes}-lanes-batch-{self.case.batch}-{self.case.precision}.txt"


def jobs(command: Command, target: Target) -> Iterator[Job]:
    """Yield what to compile for a target."""
    for lanes, batch, precision in itertools.product(command.lanes, command.batch, command.precision):
        for arm in command.chosen():
            if precision in arm.precisions:
                yield Job(target, arm, programs.Case(lanes, batch, precision))


def compile_all(command: Command, log: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Compile everything; yield estimates, and objects with ``what`` and ``reason`` for what was not compiled."""
    for name in dict.fromkeys(command.targets):
        target = TARGETS[name]
        if reason := target.missing():
            yield {"what": target.title, "reason": reason}
            continue
        worker: Worker | None = None
        try:
            for job in jobs(command, target):
                log(job.label)
                worker = worker or Worker(ENTRY, target.environment, timeout=command.limit)
                try:
                    yield compile_one(worker, job, command.hlo)
                except WorkerError as error:  # its process may have ended, or still be compiling
                    yield {"what": job.label, "reason": str(error)}
                    worker.close()
                    worker = None
        finally:
            if worker is not None:
                worker.close()


def compile_one(worker: Worker, job: Job, hlo: Path | None) -> dict[str, Any]:
    """Have a target's process compile an arm in a case, and return the estimate: see ``report.Estimate``."""
    file = None if hlo is None else str((hlo / job.file_name).absolute())
    arguments = {"target": job.target.name, "arm": job.arm.name, "hlo": file, **job.case._asdict()}
    reply = worker.ask("prepare", arguments=arguments, seconds=0)
    case = (job.case.lanes, job.case.batch, job.case.precision)
    return {
        "target": job.target.name,
        "arm": job.arm.name,
        "peer": job.arm.peer,
        **job.case._asdict(),
        **reply["info"],
        "compile_seconds": reply["compile_seconds"],
        "hlo": None if hlo is None else job.file_name,
        "commit": machine.commit_info(),
        "measured": measured.rate(job.target.name, job.arm, *case),
    }


def earlier(out: Path) -> list[dict[str, Any]]:
    """Return the estimates that a folder holds; none if it holds no results.

    Raises:
        InputError: It holds something else.
    """
    path = out / "results.json"
    try:
        found = json.loads(path.read_text())["estimates"]
        report.summary(found)
        return found
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is not a file of {PROG}: give another --out, or leave out --add") from None


def key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what an estimate is of: of two with the same, the later one is kept."""
    return tuple(entry.get(name) for name in ("what", "target", "arm", *programs.Case._fields))


def write(out: Path, entries: Sequence[dict[str, Any]]) -> str:
    """Write the results, the picture and the report to a folder, and return the report."""
    found = {
        "estimates": [entry for entry in entries if "reason" not in entry],
        "not_run": [entry for entry in entries if "reason" in entry],
        "versions": machine.versions(PACKAGES),
        "datetime": datetime.now(UTC).isoformat(),
    }
    files.write_text(out / "results.json", json.dumps(found, indent=1) + "\n")
    text = report.render(found, PICTURE)
    files.write_text(out / "report.md", text)
    if found["estimates"]:
        with files.replacing(out / PICTURE) as part:
            picture.plot(part, found["estimates"])
    return text


def main(args: Sequence[str] | None = None) -> None:
    """Run the command. Results are written after each arm, so that an interruption loses one arm only."""
    command = cli.parse(Command, prog=PROG, args=args)
    files.make_folder(command.out)
    if command.hlo is not None:
        try:
            command.hlo.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"hlo {command.hlo} cannot be created ({error.strerror}): give another folder") from None
    entries = {key(entry): entry for entry in (earlier(command.out) if command.add else [])}
    for entry in compile_all(command, lambda text: print(text, file=sys.stderr, flush=True)):
        entries[key(entry)] = entry
        write(command.out, list(entries.values()))
        if "reason" in entry:
            print(f"not run: {entry['what']}: {entry['reason']}", file=sys.stderr, flush=True)
    print(write(command.out, list(entries.values())))
    print(f"Estimates are in {command.out}.")
