"""The cache of decoded arrays: one uncompressed .npz a data set, written at once or not at all.

An entry is believed when its arrays have the SHA-256 that it was written with; any other is made again. Two processes
that make the same entry work apart, and the later one replaces the earlier one's with the same bytes.
"""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jax_s6.data import idx
from jax_s6.errors import InputError

_SCRATCH = ".preparing-"
_STALE_SECONDS = 24 * 3600.0  # longer than any download of the family takes
_logger = logging.getLogger(__name__)

Make = Callable[[Path, Progress], tuple[dict[str, np.ndarray], int]]


class Entry(NamedTuple):
    """The arrays of a data set by ``idx.ROLES``, the number of classes, and the SHA-256 of the arrays."""

    arrays: dict[str, np.ndarray]
    num_classes: int
    checksum: str


def cached(key: str, make: Make) -> Entry:
    """Reads an entry of the cache, and makes it first if it is missing or damaged.

    Args:
        key: The file's name without its suffix; it names the data set, its version and the source's checksum.
        make: Returns the arrays and the number of classes, given an empty folder to work in, which is removed
            afterwards, and where to show progress.

    Returns:
        The entry.

    Raises:
        InputError: From ``make``, or because there is no folder to work in.
    """
    folder = cache_folder()
    path = folder / f"{key}.npz"
    entry = _read(path)
    if entry is not None:
        return entry
    scratch, in_cache = _scratch(folder)
    with scratch, _progress() as progress:
        arrays, num_classes = make(Path(scratch.name), progress)
        entry = Entry(arrays, num_classes, checksum(arrays))
        if in_cache:
            _write(path, entry, Path(scratch.name))
    return entry


def checksum(arrays: dict[str, np.ndarray]) -> str:
    """Returns the SHA-256, in hexadecimal, of the bytes of the four arrays, in the order of ``idx.ROLES``."""
    digest = hashlib.sha256()
    for role in idx.ROLES:
        digest.update(np.ascontiguousarray(arrays[role]).data)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Returns ``$JAX_S6_CACHE``, or else ``jax_s6`` in the user's cache folder; it need not exist."""
    named = os.environ.get("JAX_S6_CACHE")
    base = named or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "jax_s6")
    return Path(os.path.expanduser(base))


def _read(path: Path) -> Entry | None:
    """Returns an entry, or None if it is missing or damaged."""
    try:
        with open(path, "rb") as file, np.load(file) as fields:  # np.load leaves a path open where it fails
            arrays = {role: fields[role] for role in idx.ROLES}
            entry = Entry(arrays, int(fields["num_classes"]), str(fields["checksum"]))
        if checksum(entry.arrays) == entry.checksum:
            return entry
        reason = "wrong checksum"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # zipfile and NumPy have a dozen ways to refuse a damaged file
        reason = str(error) or type(error).__name__
    _logger.warning("the cache file %s is unusable (%s), so it is made again", path, reason)
    return None


def _write(path: Path, entry: Entry, scratch: Path) -> None:
    """Writes an entry beside its place, then moves it there in one step."""
    try:
        fields: dict[str, Any] = {**entry.arrays, "num_classes": entry.num_classes, "checksum": entry.checksum}
        np.savez(scratch / "entry.npz", **fields)
        os.replace(scratch / "entry.npz", path)
    except OSError as error:
        _logger.warning("cannot write %s (%s), so the images will be prepared again", path, error.strerror)


def _scratch(folder: Path) -> tuple["tempfile.TemporaryDirectory[str]", bool]:
    """Makes a folder to work in, inside the cache folder if that can be written to.

    Returns:
        The folder, and whether it is inside the cache folder.
    """
    try:
        if folder.parts[:1] == ("~",):
            raise OSError(errno.ENOENT, "there is no home folder")
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_SCRATCH}*"):  # by a process that was killed
            with contextlib.suppress(FileNotFoundError):  # or by one that has just finished
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        return tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder, ignore_cleanup_errors=True), True
    except OSError as error:
        _logger.warning(
            "cannot write to the cache folder %s (%s), so the images are prepared again at every start; name a"
            " writable one with JAX_S6_CACHE",
            folder,
            error.strerror,
        )
    try:
        return tempfile.TemporaryDirectory(prefix=_SCRATCH, ignore_cleanup_errors=True), False
    except OSError as error:
        raise InputError(
            f"cannot write to the cache folder {folder} nor to a temporary one; name a writable one with JAX_S6_CACHE"
        ) from error


def _progress() -> Progress:
    """Returns a progress bar on standard error, which shows nothing unless that is a terminal."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not terminal, redirect_stdout=False, redirect_stderr=False)
