"""The one place that chooses by platform: how to convolve, in which precision, on how many devices."""

import contextlib
import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jax_s6.config import ModelConfig
from jax_s6.errors import InputError


def convolution(config: ModelConfig, target: str | None = None) -> str:
    """Resolves ``auto``: ``matmul`` on CPU and GPU, 20 and 3 times faster in a scan; ``xla`` on TPU."""
    if config.convolution != "auto":
        return config.convolution
    return "xla" if (target or jax.default_backend()) == "tpu" else "matmul"


def operand_dtype(config: ModelConfig, target: str | None = None) -> DTypeLike:
    """Resolves the type of the convolutions' operands: float32 unless bfloat16 is asked for."""
    if config.precision == "bf16":
        return jnp.bfloat16
    return jnp.float32


def chunk_size(target: str | None = None) -> int | None:
    """Returns how many images' activations a CPU's cache holds; None on accelerators, which take any batch at once."""
    return 64 if (target or jax.default_backend()) == "cpu" else None


def few_operations(target: str | None = None) -> bool:
    """Tells whether launching an operation costs more than its pass over small arrays: on GPU, where that was seen."""
    return (target or jax.default_backend()) in ("gpu", "cuda", "rocm")


MIN_PART = 64
"""Images: batches are split over CPU devices into parts of at least so many.

Below that, waiting for each other (13 times a step) costs the devices more than it costs one device to split each
operation over the cores: by 1.7 at batch 32 and 1.4 at batch 64, on two cores that share a cache.
"""


def cores() -> int:
    """Counts the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cpu_devices() -> None:
    """Makes each core a CPU device of its own, before JAX's backend starts; accelerators are not affected.

    Devices with a lane each, or with large parts of a batch, train faster than one whose operations run on all cores.
    """
    with contextlib.suppress(RuntimeError):  # a backend that has started, in a notebook say, keeps its devices
        jax.config.update("jax_num_cpu_devices", cores())


def use_compilation_cache(folder: Path) -> None:
    """Keeps compiled programs in ``folder``: a second start compiles nothing.

    One folder a kind of processor: a program compiled for one with other vector units may not run on this one.
    """
    kind = hashlib.sha256(" ".join([platform.machine(), *sorted(cpu_flags())]).encode()).hexdigest()[:16]
    jax.config.update("jax_compilation_cache_dir", str(folder / f"xla-{kind}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def quick_compilation(target: str) -> dict[str, int]:
    """Compiler options for a program that runs once: on CPU it compiles in half the time, to the same bits."""
    return {"xla_backend_optimization_level": 1} if target == "cpu" else {}


def one_core_a_device(devices: Sequence[jax.Device]) -> bool:
    """Tells whether these are CPU devices and at least as many as cores, so that each has one core for its work."""
    return devices[0].platform == "cpu" and len(devices) >= cores()


def training_options(devices: Sequence[jax.Device]) -> dict[str, str]:
    """Compiler options for training on these devices.

    XLA:CPU orders operations for several threads: those that could run at once follow one another, and what they
    write leaves the cache before it is read. A device of one core does better with an order that spares memory: by
    1.1 at batch 256, where one device on two cores does worse, by 1.2 at 64.
    """
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if one_core_a_device(devices) else {}


def batch_devices(batch_size: int, count: int | None) -> list[jax.Device]:
    """Chooses the devices that share one lane's batches.

    Args:
        batch_size: Images a step.
        count: How many devices; if None, one accelerator, or as many CPU devices as divide the batch into equal
            parts of at least ``MIN_PART``.

    Raises:
        InputError: There are not that many, or they do not divide the batch.
    """
    found = jax.devices()
    if count is None:
        most = len(found) if found[0].platform == "cpu" else 1
        count = equal_parts(batch_size, most, MIN_PART)
    if not 1 <= count <= len(found):
        raise InputError(f"devices must be >= 1 and <= {len(found)}, the {found[0].platform} devices here, got {count}")
    if batch_size % count:
        raise InputError(f"devices must divide the batch_size {batch_size}, got {count}")
    return found[:count]


def equal_parts(batch_size: int, most: int, smallest: int) -> int:
    """Returns into how many equal parts, of at least so many images, a batch can be split at most; at least 1."""
    return max(n for n in range(1, most + 1) if n == 1 or (batch_size % n == 0 and batch_size // n >= smallest))


def judged_at_once(count: int) -> int:
    """Into how many images a batch of so many is cut for prediction: on CPU, activations should stay in the cache."""
    return min(count, 64) if jax.default_backend() == "cpu" else count


def judging_devices(num_parts: int) -> list[jax.Device]:
    """Chooses devices of this process that judge so many parts of a batch, each as many."""
    found = jax.local_devices()
    return found[: equal_parts(num_parts, len(found), 1)]


def cpu_flags() -> set[str]:
    """Returns the processor's feature flags as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return next((set(line.split()[2:]) for line in text.splitlines() if line.startswith("flags")), set())
