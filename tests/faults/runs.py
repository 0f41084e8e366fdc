"""Runs in their own processes, to be killed."""

import contextlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jax_s6.runs import checkpoints
from tests.conftest import write_idx

PLAIN = "--rotation 0 --shift 0 --scale 0 --elastic 0 --batch-size 50".split()
"""Without augmentation, whose compilation is most of a program's."""
PLAINEST = [*PLAIN, *"--dropout-conv1 0 --dropout-conv2 0".split()]
"""Without dropout, too."""


def write_bars(folder: Path, bars) -> Path:
    """Writes the bars as four IDX files."""
    for prefix, part in (("train", "train"), ("t10k", "test")):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", getattr(bars, f"{part}_images")[..., 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", getattr(bars, f"{part}_labels"))
    return folder


def start(command: str, arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """Starts ``python -m jax_s6.<command>`` in its own session."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    line = [sys.executable, "-m", f"jax_s6.{command}", *arguments]
    return subprocess.Popen(line, env={**os.environ, **environment}, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """Waits for a process; returns what it wrote on standard error."""
    try:
        output, error = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == status, output[-2000:] + error
    assert "Traceback" not in error, error
    return error


def kill(process: subprocess.Popen[str]) -> bool:
    """Sends SIGKILL to a process; returns whether it was still running."""
    running = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return running


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    """Waits until a condition holds, while a process runs."""
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, f"it has ended: {process.communicate()}"
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.001)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Makes this process unable to write files of more than ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def split_command(error: str) -> list[str]:
    """Returns the arguments of the command that a stopped run printed last."""
    prog, module, name, *arguments = shlex.split(error.rpartition("resume with: ")[2])
    assert (prog, module, name) == ("python", "-m", "jax_s6.train")
    return arguments


def results(out: Path) -> dict:
    """Returns everything that a run left and that must not depend on stops: all but times and names of devices."""
    left = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and "checkpoints" not in path.parts):
        data = path.read_bytes()
        if path.name == "metrics.jsonl":
            data = [json.loads(line) for line in data.splitlines()]
            assert all(row.pop("seconds") > 0 for row in data)
        if path.name == "summary.json":
            data = json.loads(data)
            for name in ("compile_seconds", "train_seconds", "images_per_second"):
                assert data.pop(name) > 0
            data["config"]["data"].pop("data_dir")
        if path.name == "config.json":
            data = json.loads(data)
        left[path.name] = data
    for epoch in checkpoints.epochs(out / "checkpoints"):
        arrays = checkpoints.read(out / "checkpoints" / f"{epoch}.safetensors").arrays
        left[f"checkpoint {epoch}"] = {name: (x.dtype, x.shape, x.tobytes()) for name, x in arrays.items()}
    return left


def assert_same(got: dict, want: dict) -> None:
    """Compares what two runs left, file by file."""
    assert got.keys() == want.keys()
    for name in want:
        assert got[name] == want[name], f"{name} differs"
