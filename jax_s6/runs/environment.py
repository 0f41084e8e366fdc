"""The versions, the device and the machine that are recorded in a run's summary."""

import platform
from importlib import metadata
from typing import Any

import jax

from jax_s6 import backend


def environment() -> dict[str, Any]:
    """Return versions, device and machine as JSON values."""
    device = jax.devices()[0]
    packages = ("jax_s6", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {"python": platform.python_version(), **{name: _version(name) for name in packages}}
    flags = backend.cpu_flags()
    return {
        "versions": versions,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "machine": {
            "system": platform.platform(),
            "cores": backend.cores(),
            "vector_units": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        },
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # this package, run from its source
        return "not installed"
