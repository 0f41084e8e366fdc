"""Seconds from the command to the first training step, and where they go: ``python -m benchmarks.start_up``.

Every start is a new process that does what ``python -m jax_s6.train`` does, up to the moment at which the first step
can run. The decoded data is in the cache beforehand. A cold start compiles; a warm one finds its programs in the cache.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3


def start() -> dict[str, float]:
    """Starts a run in this process; returns the seconds of each part."""
    begin, parts = time.perf_counter(), {}

    def lap(name: str) -> None:
        parts[name] = time.perf_counter() - begin - sum(parts.values())

    from jax_s6 import backend, data, data_cache, train

    lap("imports")
    command = train.parse_command([])
    backend.use_cpu_devices()
    backend.use_compilation_cache(data_cache.cache_folder())
    lap("command line")
    dataset = data.load(command.run.data)
    lap("data")
    prepared = train.prepare(command.run, dataset)
    lap("data to the devices")
    train.compile_run(command.run, prepared)
    lap("initial state, tracing and compilation")
    return parts


def main() -> None:
    if sys.argv[1:] == ["--start"]:
        print(json.dumps(start()))
        return
    from jax_s6 import data, data_cache
    from jax_s6.config import DataConfig

    data.load(DataConfig())
    prepared = data_cache.cache_folder()
    with tempfile.TemporaryDirectory() as folder:
        for path in prepared.glob("*.npz"):
            os.symlink(path, Path(folder) / path.name)
        for kind in ("cold", "warm"):
            runs = [measure(folder, cold=kind == "cold") for _ in range(ROUNDS)]
            print(f"\n{kind} start: seconds, median of {ROUNDS}")
            for name in runs[0]:
                print(f"{statistics.median(run[name] for run in runs):7.2f}  {name}")


def measure(folder: str, *, cold: bool) -> dict[str, float]:
    """Starts once, in a process of its own, without the compiled programs if ``cold``."""
    if cold:
        for path in Path(folder).glob("xla-*/*"):
            path.unlink()
    begin = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.start_up", "--start"]
    environment = {**os.environ, "JAX_S6_CACHE": folder}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    parts = json.loads(done.stdout.splitlines()[-1])
    return {**parts, "all, with Python's own start and end": time.perf_counter() - begin}


if __name__ == "__main__":
    main()
