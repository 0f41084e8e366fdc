"""The start of a training, in a new process each time, and how long each of its parts takes.

jax_s6 starts as ``python -m jax_s6.train`` does, up to the compiled epoch. PyTorch loads the same arrays and takes one
step.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.worker import Task


def ours(*, recipe: str, cold: bool) -> Task:
    """Start jax_s6 with the decoded data in the cache, and with compiled programs there unless ``cold``."""
    from jax_s6 import backend, data
    from jax_s6.config import DataConfig

    data.load(DataConfig())
    folder = tempfile.mkdtemp()
    cache = backend.cache_folder()
    for path in cache.glob("*.npz") if cache else ():
        os.symlink(path, Path(folder) / path.name)
    if not cold:
        start(["ours", recipe], {"JAX_S6_CACHE": folder})

    def run(n: int) -> dict[str, Any]:
        for path in Path(folder).glob("xla-*/*") if cold else ():
            path.unlink()
        return start(["ours", recipe], {"JAX_S6_CACHE": folder})

    return Task(run, 1, repeatable=False)


def torch(*, recipe: str, mode: str) -> Task:
    """Start PyTorch with an empty cache of compiled code."""

    def run(n: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return start(["torch", mode], {"TORCHINDUCTOR_CACHE_DIR": folder})

    return Task(run, 1, repeatable=False)


def start(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Start once. Return the seconds from the command to the first step, and a text with the seconds of each part."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.arms.start_up", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    started, parts = json.loads(done.stdout.splitlines()[-1])
    parts = {"Python's own start": started - begin, **parts}
    text = "\n".join(f"- {name}: {value:.2f}" for name, value in parts.items())
    return {"seconds": sum(parts.values()), "text": text}


def start_ours(recipe: str) -> Iterator[str]:
    """Do what ``python -m jax_s6.train`` does, and yield the name of each part when it is done."""
    from jax_s6 import backend, data
    from jax_s6.train.command import parse_command
    from jax_s6.train.run import make_run

    yield "imports"
    command = parse_command(["--recipe", recipe])
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    yield "command line"
    dataset = data.load(command.run.data)
    yield "data"
    trainer = make_run(command.run, dataset).trainers[0]
    trainer.prepare()
    yield "data to the devices, tracing and compilation"
    trainer.create()
    yield "initial state"


def start_torch(mode: str) -> Iterator[str]:
    """Import PyTorch, read the data, and take a step of batch size 64; yield the name of each part when it is done."""
    import torch  # noqa: F401

    from benchmarks.arms.pytorch.step import Trainer, make_batches

    yield "imports"
    batches = make_batches(64, 1, "channels_last")
    yield "data"
    trainer = Trainer(mode, "channels_last", "float32")
    yield "network and optimizer"
    trainer.step(*batches[0])
    yield "first step" if mode == "eager" else "compilation and first step"


if __name__ == "__main__":
    times, names = [time.monotonic()], []  # this clock is the same in all processes
    for name in {"ours": start_ours, "torch": start_torch}[sys.argv[1]](sys.argv[2]):
        times.append(time.monotonic())
        names.append(name)
    seconds = [after - before for before, after in itertools.pairwise(times)]
    print(json.dumps([times[0], dict(zip(names, seconds, strict=True))]))
