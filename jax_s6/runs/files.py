"""Files that are written completely or not at all, and the folders they are written to."""

import contextlib
import csv
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax_s6.errors import InputError


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise InputError if ``out`` holds a finished run, unless it may be overwritten."""
    if os.path.exists(out / "summary.json") and not overwrite:
        raise InputError(f"out {out} already holds a run: give another --out, or --overwrite to replace it")


def make_folder(out: Path) -> None:
    """Create the output folder.

    Raises:
        InputError: It cannot be created, or files cannot be created in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"out {out} cannot be written to ({error.strerror}): give another folder to --out") from None


@contextlib.contextmanager
def replacing(path: Path, advice: str = "free disk space or give another path") -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which replaces ``path`` once everything is on the disk.

    Args:
        path: The file.
        advice: What the user can do if it cannot be written.

    Raises:
        InputError: It cannot be written; ``path`` is as it was.
    """
    part = path.with_name(f".{path.stem}.part{os.getpid()}{path.suffix}")
    try:
        yield part
        _sync(part, os.O_RDWR)
        os.replace(part, path)
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            _sync(path.parent, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): {advice}") from None
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    with replacing(path) as part:
        part.write_text(text)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON; a number that is not finite, which JSON does not have, becomes null."""
    write_text(path, json.dumps(_finite(value), indent=2, default=str, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, as ``write_json`` does."""
    write_text(path, "".join(json.dumps(_finite(row), allow_nan=False) + "\n" for row in rows))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same columns as CSV; None becomes an empty cell."""
    with replacing(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _finite(value: Any) -> Any:
    """Replace all numbers that are not finite by None."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sync(path: Path, mode: int) -> None:
    """Wait until a file, or the entries of a folder, survive a power failure."""
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
