"""Starts of ``start_up``: processes that do what a training command does up to its first step, and say where time went.

Ours is ``python -m jax_s6.train`` up to the compiled epoch; PyTorch's loads the same arrays and takes one step.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.worker import Task


def ours(*, recipe: str, cold: bool) -> Task:
    """Starts with or without compiled programs in the cache; the decoded data is there."""
    from jax_s6.config import DataConfig
    from jax_s6.data import cache as data_cache
    from jax_s6.data import dataset as data

    data.load(DataConfig())
    folder = tempfile.mkdtemp()
    for path in data_cache.cache_folder().glob("*.npz"):
        os.symlink(path, Path(folder) / path.name)
    if not cold:
        start(["ours", recipe], {"JAX_S6_CACHE": folder})

    def run(n: int) -> dict[str, Any]:
        for path in Path(folder).glob("xla-*/*") if cold else ():
            path.unlink()
        return start(["ours", recipe], {"JAX_S6_CACHE": folder})

    return Task(run, 1, repeatable=False)


def torch(*, recipe: str, mode: str) -> Task:
    """Starts PyTorch; compiled code is made anew."""

    def run(n: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return start(["torch", mode], {"TORCHINDUCTOR_CACHE_DIR": folder})

    return Task(run, 1, repeatable=False)


def start(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Starts once; returns the seconds from the command to the first step, and a text with those of their parts."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.arms.start_up", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    started, parts = json.loads(done.stdout.splitlines()[-1])
    parts = {"Python's own start": started - begin, **parts}
    text = "\n".join(f"- {name}: {value:.2f}" for name, value in parts.items())
    return {"seconds": sum(parts.values()), "text": text}


class Laps:
    """Seconds by part, since a moment of the machine's monotonic clock."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.begin = time.monotonic()

    def done(self, name: str) -> None:
        """Ends a part."""
        self.parts[name] = time.monotonic() - self.begin - sum(self.parts.values())


def start_ours(recipe: str) -> Laps:
    """Does in this process what ``python -m jax_s6.train`` does."""
    laps = Laps()
    from jax_s6 import backend
    from jax_s6.data import cache as data_cache
    from jax_s6.data import dataset as data
    from jax_s6.train import command as train

    laps.done("imports")
    command = train.parse_command(["--recipe", recipe])
    backend.use_cpu_devices()
    backend.use_compilation_cache(data_cache.cache_folder())
    laps.done("command line")
    dataset = data.load(command.run.data)
    laps.done("data")
    prepared = train.prepare(command.run, dataset)
    laps.done("data to the devices")
    train.compile_run(command.run, prepared)
    laps.done("initial state, tracing and compilation")
    return laps


def start_torch(mode: str) -> Laps:
    """Imports PyTorch, reads the data, and takes a step of batch 64."""
    laps = Laps()
    import torch  # noqa: F401

    from benchmarks.arms import torch_step as torch_arms

    laps.done("imports")
    batches = torch_arms.make_batches(64, 1, "channels_last")
    laps.done("data")
    trainer = torch_arms.Trainer(mode, "channels_last", "float32")
    laps.done("network and optimizer")
    trainer.step(*batches[0])
    laps.done("first step" if mode == "eager" else "compilation and first step")
    return laps


if __name__ == "__main__":
    starts = {"ours": start_ours, "torch": start_torch}
    laps = starts[sys.argv[1]](sys.argv[2])
    print(json.dumps([laps.begin, laps.parts]))
