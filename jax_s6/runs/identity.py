"""What must be the same when a run is resumed, so that it ends as if it had never stopped: settings, data and code."""

import ast
import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from jax_s6.settings import flatten

NUMERICS = ("backend", "config", "errors", "network", "settings", "training")
"""The modules and packages that determine a run's numbers; others may change between a run's start and its end."""
_IGNORED = ("annotation", "returns", "type_params", "type_comment", "kind", "ctx", "exc", "cause")
_PACKAGES = ("jax", "jaxlib", "flax", "optax")


def identity(settings: Mapping[str, Any], data_checksum: str) -> dict[str, Any]:
    """Collect a run's identity.

    Args:
        settings: By name; a value that is a mapping is a section.
        data_checksum: The data set's SHA-256.

    Returns:
        JSON values by the name that is used in error messages.
    """
    flat = flatten(settings)
    flat.pop("data_dir", None)  # the images count, not where they are
    return {**flat, "data": data_checksum, **code_version()}


def code_version() -> dict[str, str]:
    """Return the versions of the packages that compute, and a checksum of this package's code that does."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for name in NUMERICS:
        for path in sorted((root / name).rglob("*.py")) or [root / f"{name}.py"]:
            digest.update(f"{path.relative_to(root).as_posix()}\n{essence(ast.parse(path.read_bytes()))}\n".encode())
    versions = {f"version of {name}": metadata.version(name) for name in _PACKAGES}
    return {**versions, "code": digest.hexdigest()}


def essence(node: Any) -> str:
    """Return a syntax tree as text, the same in all Python versions, without what computes nothing.

    That is: comments, docstrings, annotations and the messages of exceptions.
    """
    if isinstance(node, list):
        return f"[{', '.join(essence(entry) for entry in node if not _is_docstring(entry))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = (essence(value) for name, value in ast.iter_fields(node) if name not in _IGNORED)
    return f"{type(node).__name__}({', '.join(fields)})"


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
