"""What a number was measured on: processor, cores, load, memory, versions, commit, flags."""

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "keras", "tensorflow", "onnxruntime")
VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
PROBE = (
    "import json, jax; d = jax.devices(); s = d[0].memory_stats() or {};"
    "print(json.dumps({'platform': d[0].platform, 'kind': d[0].device_kind, 'count': len(d),"
    " 'memory': s.get('bytes_limit')}))"
)


def machine_info() -> dict[str, Any]:
    """Describes the machine, in the names of pytest-benchmark's schema and some more."""
    cpu = cpu_info()
    return {
        "node": platform.node(),
        "processor": platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "python_implementation": platform.python_implementation(),
        "python_implementation_version": platform.python_version(),
        "python_version": platform.python_version(),
        "python_compiler": platform.python_compiler(),
        "python_build": list(platform.python_build()),
        "system": platform.system(),
        "release": platform.release(),
        "cpu": cpu,
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load_average": os.getloadavg(),
        "memory_bytes": memory(),
        "device": device(),
        "versions": versions(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def cpu_info() -> dict[str, Any]:
    """Names the processor, its feature flags and how many of its threads there are, as Linux has them."""
    info: dict[str, Any] = {"arch": platform.machine(), "count": os.cpu_count(), "brand_raw": platform.processor()}
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {**info, "flags": []}
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    info["brand_raw"] = fields.get("model name", info["brand_raw"])
    return {**info, "hz_advertised_friendly": fields.get("cpu MHz"), "flags": fields.get("flags", "").split()}


def memory() -> int | None:
    """Bytes of main memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


@functools.cache
def device() -> dict[str, Any]:
    """Asks JAX, once and in a process of its own, for its devices and their memory."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"platform": "none", "error": done.stderr.strip()[-200:]}


def versions() -> dict[str, str]:
    """Versions of the packages that take part; those that are not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit_info() -> dict[str, Any]:
    """Says which commit of the project is measured, and whether files differ from it."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()
        except OSError:
            return ""

    return {
        "id": git("rev-parse", "HEAD") or "unknown",
        "time": git("log", "-1", "--format=%cI") or None,
        "author_time": git("log", "-1", "--format=%aI") or None,
        "dirty": bool(git("status", "--porcelain")),
        "project": "jax_s6",
        "branch": git("rev-parse", "--abbrev-ref", "HEAD") or "unknown",
    }
