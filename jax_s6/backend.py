"""All choices by platform and machine: convolution, precision, devices, compiler options and the cache folder."""

import contextlib
import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import platformdirs
from jax.typing import DTypeLike

from jax_s6.config import ModelConfig, StaticSettings
from jax_s6.errors import InputError


def convolution(config: ModelConfig | StaticSettings, target: str | None = None) -> str:
    """Resolve ``auto``: ``packed`` on TPU, by the compiler's estimates; ``matmul`` on CPU and, as measured, on GPU."""
    if config.convolution != "auto":
        return config.convolution
    return "packed" if (target or jax.default_backend()) == "tpu" else "matmul"


def operand_dtype(config: ModelConfig | StaticSettings, target: str | None = None) -> DTypeLike:
    """Return the type of the numbers that convolutions multiply: float32 unless the settings ask for bfloat16."""
    return jnp.bfloat16 if config.precision == "bf16" else jnp.float32


MIN_PART = 64
"""Smallest number of images per chunk of a training batch on CPU, and so per device that shares the batch.

The activations of 64 images stay in the cache. With fewer per device, waiting for the other devices (13 times per step)
costs more than one device that runs each operation on all cores: by a factor of 1.7 at batch 32 and 1.4 at batch 64, on
two cores that share a cache.
"""
MAX_CHUNKS = 16
"""Largest number of chunks per batch. Each chunk is compiled separately."""


def num_chunks(batch_size: int, target: str | None = None) -> int:
    """Return the number of equal chunks of a training batch: a power of two on CPU, and 1 on accelerators."""
    if (target or jax.default_backend()) != "cpu":
        return 1
    counts = (2**k for k in range(MAX_CHUNKS.bit_length()))
    return max(n for n in counts if n == 1 or (batch_size % n == 0 and batch_size // n >= MIN_PART))


def few_operations(target: str | None = None) -> bool:
    """Return whether to prefer few large operations: on GPU, where a launch outlasts a pass over a small array."""
    return (target or jax.default_backend()) in ("gpu", "cuda", "rocm")


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cpu_devices() -> None:
    """Make each core a CPU device; call it before JAX's backend starts. Accelerators are not affected.

    One device per core trains faster than one device on all cores if each has a lane, or a large part of a batch.
    """
    with contextlib.suppress(RuntimeError):  # a backend that has started, as in a notebook, keeps its devices
        jax.config.update("jax_num_cpu_devices", cores())


def cache_folder() -> Path | None:
    """Return ``$JAX_S6_CACHE``, or else the user's cache folder of jax_s6; None if there is no home folder for it.

    The folder need not exist.
    """
    named = os.environ.get("JAX_S6_CACHE")
    try:
        return (Path(named) if named else platformdirs.user_cache_path("jax_s6", appauthor=False)).expanduser()
    except RuntimeError:  # a folder that is literally called "~" would be made in its place
        return None


def use_compilation_cache(folder: Path | None) -> None:
    """Keep compiled programs in a folder, so that a second start compiles nothing; None: keeps none.

    Each kind of processor has its own subfolder: a program may use vector units that another processor does not have.
    """
    if folder is None:
        return
    kind = hashlib.sha256(" ".join([platform.machine(), *sorted(cpu_flags())]).encode()).hexdigest()[:16]
    jax.config.update("jax_compilation_cache_dir", str(folder / f"xla-{kind}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def quick_compilation(target: str) -> dict[str, int]:
    """Return compiler options for a program that runs once: on CPU they halve the compile time, with equal results."""
    return {"xla_backend_optimization_level": 1} if target == "cpu" else {}


def one_core_per_device(devices: Sequence[jax.Device]) -> bool:
    """Return whether these are CPU devices, at least as many as there are cores, so that each has one core."""
    return devices[0].platform == "cpu" and len(devices) >= cores()


def training_options(devices: Sequence[jax.Device]) -> dict[str, str]:
    """Return compiler options for training on these devices.

    By default XLA:CPU orders operations for several threads: independent ones follow one another, and their results
    leave the cache before they are read. On devices with one core each, the order that saves memory is faster, by a
    factor of 1.1 at batch 256; on one device with two cores it is slower, by a factor of 1.2 at batch 64.
    """
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if one_core_per_device(devices) else {}


def devices_per_batch(batch_size: int, num_devices: int, target: str | None = None) -> int:
    """Return over how many of ``num_devices`` a batch is split by default: whole chunks each; 1 on accelerators."""
    return min(num_chunks(batch_size, target), floor_power_of_two(num_devices))


def floor_power_of_two(number: int) -> int:
    """Return the largest power of two that is at most ``number``, and at least 1."""
    return 1 << max(number.bit_length() - 1, 0)


def equal_parts(size: int, most: int) -> int:
    """Return the largest number of equal parts of ``size``, at most ``most``."""
    return max(n for n in range(1, most + 1) if size % n == 0)


def first_devices(count: int) -> list[jax.Device]:
    """Return the first devices.

    Raises:
        InputError: There are fewer.
    """
    found = jax.devices()
    if not 1 <= count <= len(found):
        raise InputError(f"devices must be >= 1 and <= {len(found)}, the {found[0].platform} devices here, got {count}")
    return found[:count]


def prediction_chunk(count: int) -> int:
    """Return how many of ``count`` images to predict at once: on CPU at most 64, whose activations fit in the cache."""
    return min(count, 64) if jax.default_backend() == "cpu" else count


def prediction_devices(count: int) -> list[jax.Device]:
    """Return the devices of this process that share ``count`` chunks of a prediction equally."""
    found = jax.local_devices()
    return found[: equal_parts(count, len(found))]


def cpu_flags() -> set[str]:
    """Return the processor's feature flags as Linux names them; an empty set on other systems."""
    # py-cpuinfo starts other programs and takes 1.3 seconds, which every command would wait for; this takes 0.2 ms.
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return next((set(line.split()[2:]) for line in text.splitlines() if line.startswith("flags")), set())
