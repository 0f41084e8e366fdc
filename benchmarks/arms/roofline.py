"""The machine's peaks in JAX and NumPy, and our training step in FLOPs and bytes, with its operations' times."""

import collections
import glob
import math
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.arms import ours
from benchmarks.arms.jax_tools import compile_timed
from benchmarks.worker import Task
from jax_s6 import backend

# Each convolution's input and output sizes (square) and input channels; it has 16 output channels and 3x3 taps.
LAYERS = ((28, 28, 1), (28, 14, 16), (7, 7, 16), (7, 4, 16), (2, 2, 16), (2, 1, 16))
# What max-pooling reads and writes, an image: 14x14 to 7x7 and 4x4 to 2x2, 16 channels.
POOLS = ((14, 7), (4, 2))
SIZE = 2048
TOP = 20


def flops_per_image() -> int:
    """FLOPs of the convolutions forward, and of their gradients to the input and to the kernel."""
    forward = [2 * 9 * channels * 16 * size**2 for _, size, channels in LAYERS]
    return 3 * sum(forward) - forward[0]  # nobody needs the gradient to the images


def bytes_per_image() -> int:
    """The least bytes of a step: convolutions and batch normalisations read and write, forward and backward."""
    inputs = [size**2 * channels for size, _, channels in LAYERS]
    outputs = [size**2 * 16 for _, size, _ in LAYERS]
    convolutions = sum(inputs) + sum(outputs)
    normalisations = 2 * sum(outputs)
    pools = sum(16 * (before**2 + after**2) for before, after in POOLS)
    return 4 * 3 * (convolutions + normalisations + pools)


def products(*, batch: int, precision: str) -> Task:
    """A large matrix product a device, all at once."""
    backend.use_cpu_devices()
    devices = jax.devices()
    dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
    sharding = NamedSharding(Mesh(np.array(devices), ("device",)), P("device"))
    a = jax.device_put(jnp.full((len(devices), SIZE, SIZE), 0.01, dtype), sharding)

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        # A transposed operand keeps XLA:CPU from widening bfloat16 products to float32.
        return jax.lax.dot_general(a[0], b[0], (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)[None]

    mapped = jax.jit(jax.shard_map(product, in_specs=P("device"), out_specs=P("device"), mesh=sharding.mesh))
    compiled, seconds = compile_timed(mapped, a, a)

    def run(n: int) -> None:
        jax.block_until_ready([compiled(a, a) for _ in range(n)])

    return Task(run, len(devices) * 2 * SIZE**3 / 1e9, compile_seconds=seconds, info={"devices": len(devices)})


def copy(*, batch: int) -> Task:
    """A thread a core copies its part of an array that no cache holds."""
    threads = backend.cores()
    source = np.ones((threads, 32 << 20), np.float32)
    target = np.zeros_like(source)
    pool = ThreadPoolExecutor(threads)

    def run(n: int) -> None:
        for _ in range(n):
            list(pool.map(lambda i: np.copyto(target[i], source[i]), range(threads)))

    return Task(run, 2 * source.nbytes / 1e9)


def exchange(*, batch: int) -> Task:
    """A thread a core writes 4 MB, and when all have, reads what its neighbour wrote."""
    threads = backend.cores()
    arrays = np.ones((threads, 1 << 20), np.float32)
    pool, barrier = ThreadPoolExecutor(threads), threading.Barrier(threads)

    def read(number: int, n: int) -> float:
        seconds = 0.0
        for value in range(n):
            arrays[number].fill(value)
            barrier.wait()
            start = time.perf_counter()
            arrays[number - 1].max()
            seconds += time.perf_counter() - start
            barrier.wait()
        return seconds

    def run(n: int) -> dict[str, float]:
        return {"seconds": max(pool.map(read, range(threads), [n] * threads))}

    return Task(run, arrays.nbytes / 1e9)


def step(*, batch: int, precision: str = "float32", count: str = "flops", devices: int | None = None) -> Task:
    """Our training step, its rate counted in FLOPs or bytes."""
    task = ours.train_step(batch=batch, precision=precision, devices=devices)
    task.work *= (flops_per_image() if count == "flops" else bytes_per_image()) / 1e9
    if count == "flops":
        task.run(1)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            with jax.profiler.trace(folder):
                task.run(1)
            seconds = time.perf_counter() - start
            task.info["operations"] = operations(folder)
        task.info["traced_seconds"] = seconds
        task.info["text"] = describe(task.info["operations"])
    return task


def operations(folder: str) -> list[dict[str, Any]]:
    """Sums a trace's time by XLA operation.

    Args:
        folder: What ``jax.profiler.trace`` wrote.

    Returns:
        ``name, seconds, count, share`` of the ``TOP`` longest, then the others together; seconds are over all threads.
    """
    [path] = glob.glob(os.path.join(folder, "**", "*.xplane.pb"), recursive=True)
    seconds: dict[str, float] = collections.defaultdict(float)
    counts: dict[str, int] = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(path).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats and not is_control(event.name):
                    seconds[event.name] += event.duration_ns / 1e9
                    counts[event.name] += 1
    total = sum(seconds.values()) or math.nan
    order = sorted(seconds, key=lambda name: -seconds[name])
    rows = [{"name": name, "seconds": seconds[name], "count": counts[name]} for name in order[:TOP]]
    rest = order[TOP:]
    if rest:
        others = {"name": f"{len(rest)} others", "seconds": sum(seconds[n] for n in rest)}
        rows.append({**others, "count": sum(counts[n] for n in rest)})
    return [{**row, "share": row["seconds"] / total} for row in rows]


def is_control(name: str) -> bool:
    """Whether an operation's time is that of the operations within it."""
    return name.partition(".")[0] in ("while", "call", "conditional")


def describe(rows: list[dict[str, Any]]) -> str:
    """Writes the operations as a table."""
    lines = ["| operation | ms | times | share |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['name']} | {row['seconds'] * 1e3:.1f} | {row['count']} | {row['share']:.1%} |")
    return "\n".join(lines)
