"""The highest speeds of the machine in JAX and NumPy, and jax_s6's training step in FLOPs and bytes."""

import collections
import math
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.arms import ours
from benchmarks.arms.jax_tools import compile_timed, trace
from benchmarks.worker import Task, repeated
from jax_s6 import backend

# Of each convolution: height and width of input and output, and input channels. All have 16 output channels and 3x3
# kernels.
LAYERS = ((28, 28, 1), (28, 14, 16), (7, 7, 16), (7, 4, 16), (2, 2, 16), (2, 1, 16))
# Height and width of each max-pooling's input and output, which have 16 channels.
POOLS = ((14, 7), (4, 2))
SIZE = 2048
TOP = 20


def flops_per_image() -> int:
    """Count the FLOPs of the convolutions, and of their gradients with respect to input and kernel."""
    forward = [2 * 9 * channels * 16 * size**2 for _, size, channels in LAYERS]
    return 3 * sum(forward) - forward[0]  # the gradient with respect to the images is not needed


def bytes_per_image() -> int:
    """Count the bytes that convolutions, batch normalisations and pooling must read and write in a training step."""
    inputs = [size**2 * channels for size, _, channels in LAYERS]
    outputs = [size**2 * 16 for _, size, _ in LAYERS]
    convolutions = sum(inputs) + sum(outputs)
    normalisations = 2 * sum(outputs)
    pools = sum(16 * (before**2 + after**2) for before, after in POOLS)
    return 4 * 3 * (convolutions + normalisations + pools)


def products(*, batch: int, precision: str) -> Task:
    """Multiply large matrices, one product per device at the same time."""
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
    """Copy an array that fits in no cache, with one thread per core."""
    threads = backend.cores()
    source = np.ones((threads, 32 << 20), np.float32)
    target = np.zeros_like(source)
    pool = ThreadPoolExecutor(threads)

    def once() -> None:
        list(pool.map(lambda i: np.copyto(target[i], source[i]), range(threads)))

    return Task(repeated(once), 2 * source.nbytes / 1e9)


def exchange(*, batch: int) -> Task:
    """Write 4 MB with one thread per core, and when all have finished, read what another thread wrote."""
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
    """Run jax_s6's training step, whose speed is counted in FLOPs or bytes."""
    task = ours.train_step(batch=batch, precision=precision, devices=devices)
    task.work *= (flops_per_image() if count == "flops" else bytes_per_image()) / 1e9
    if count == "flops":
        task.run(1)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            trace(task.run, folder)
            task.info["traced_seconds"] = time.perf_counter() - start
            task.info["operations"] = operations(folder)
        task.info["text"] = describe(task.info["operations"])
    return task


def operations(folder: str) -> list[dict[str, Any]]:
    """Sum the time in a trace by XLA operation.

    Args:
        folder: The folder that ``jax.profiler.trace`` wrote.

    Returns:
        ``name, seconds, count, share`` of the ``TOP`` longest operations, then of all others together. Seconds are
        summed over all threads.
    """
    [path] = Path(folder).rglob("*.xplane.pb")
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for event in (event for line in plane.lines for event in line.events):
            control = event.name.partition(".")[0] in ("while", "call", "conditional")  # contains other operations
            if "hlo_op" in dict(event.stats) and not control:
                seconds[event.name].append(event.duration_ns / 1e9)
    order = sorted(seconds.items(), key=lambda item: -sum(item[1]))
    groups, others = order[:TOP], [runs for _, runs in order[TOP:]]
    groups += [(f"{len(others)} others", sum(others, []))] if others else []
    total = sum(map(sum, seconds.values())) or math.nan
    return [{"name": n, "seconds": sum(r), "count": len(r), "share": sum(r) / total} for n, r in groups]


def describe(rows: list[dict[str, Any]]) -> str:
    """Write the operations as a Markdown table."""
    lines = [f"| {r['name']} | {r['seconds'] * 1e3:.1f} | {r['count']} | {r['share']:.1%} |" for r in rows]
    return "\n".join(["| operation | ms | runs | share of the time |", "|---|---|---|---|", *lines])
