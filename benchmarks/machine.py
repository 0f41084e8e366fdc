"""The machine, the software and the commit that a result was measured with."""

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cpuinfo

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "keras", "tensorflow", "onnxruntime")
PLATFORM = (
    *("node", "machine", "system", "release"),
    *("python_version", "python_implementation", "python_compiler", "python_build"),
)
VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
PROBE = (
    "import json, jax; d = jax.devices(); s = d[0].memory_stats() or {};"
    "print(json.dumps({'platform': d[0].platform, 'kind': d[0].device_kind, 'count': len(d),"
    " 'memory': s.get('bytes_limit')}))"
)


def machine_info() -> dict[str, Any]:
    """Describe the machine by the names of pytest-benchmark's schema, and some more."""
    return {
        **{name: getattr(platform, name)() for name in PLATFORM},
        "processor": platform.processor() or platform.machine(),
        "python_implementation_version": platform.python_version(),
        "cpu": cpu_info(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load_average": os.getloadavg(),
        "memory_bytes": memory(),
        "device": device(),
        "versions": versions(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


@functools.cache
def cpu_info() -> dict[str, Any]:
    """Describe the processor and its features, as pytest-benchmark does; it takes a second."""
    return {"brand_raw": platform.processor(), "flags": [], **cpuinfo.get_cpu_info()}


def memory() -> int | None:
    """Return the size of the main memory in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def has_nvidia_gpu() -> bool:
    """Return whether there is an NVIDIA GPU, without importing a framework."""
    return shutil.which("nvidia-smi") is not None


@functools.cache
def device() -> dict[str, Any]:
    """Ask JAX once, in a process of its own, for its devices and their memory."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"platform": "none", "error": done.stderr.strip()[-200:]}


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed; by default of those under comparison."""
    found = {package.name.lower(): package.version for package in importlib.metadata.distributions()}
    return {name: found[name] for name in packages if name in found}


def commit_info() -> dict[str, Any]:
    """Return the commit of the project that is measured, and whether files differ from it."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        with contextlib.suppress(OSError):
            return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()
        return ""

    return {
        "id": git("rev-parse", "HEAD") or "unknown",
        "time": git("log", "-1", "--format=%cI") or None,
        "author_time": git("log", "-1", "--format=%aI") or None,
        "dirty": bool(git("status", "--porcelain")),
        "project": "jax_s6",
        "branch": git("rev-parse", "--abbrev-ref", "HEAD") or "unknown",
    }
