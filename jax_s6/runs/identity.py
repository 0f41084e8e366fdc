"""What must be the same when a run goes on, so that it ends as if it had never stopped: settings, data and code."""

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

NUMERICS = ("augment", "backend", "config", "errors", "loop", "model", "ops", "optim", "state", "steps")
"""The modules that determine a run's numbers: ``loop`` and all that it imports. Others may change under a run."""
_PACKAGES = ("jax", "jaxlib", "flax", "optax")


def identity(settings: Mapping[str, Any], data_checksum: str) -> dict[str, Any]:
    """Collects a run's identity.

    Args:
        settings: By name; those of a section, a mapping, are taken out of it.
        data_checksum: The data set's SHA-256.

    Returns:
        JSON values by the name that an error message calls them.
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    flat.pop("data_dir", None)  # the images count, not where they lie
    return {**flat, "data": data_checksum, **code_version()}


def code_version() -> dict[str, str]:
    """Returns the versions of the packages that compute, and a checksum of this one's source, installed or not."""
    digest = hashlib.sha256()
    for name in NUMERICS:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    versions = {f"version of {name}": metadata.version(name) for name in _PACKAGES}
    return {**versions, "code": digest.hexdigest()}
