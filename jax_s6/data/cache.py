"""The cache of decoded arrays: one uncompressed .npz file per data set, written as a whole or not at all.

An entry is used only if its arrays have the SHA-256 that was written with them; otherwise it is made again. Two
processes that make the same entry do not wait for each other: the later one replaces the file by the same bytes.
"""

import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jax_s6.data.dataset import Dataset
from jax_s6.data.idx import ROLES, Arrays
from jax_s6.errors import InputError

_SCRATCH = ".preparing-"
_STALE_SECONDS = 24 * 3600.0  # no download of these data sets takes longer
_logger = logging.getLogger(__name__)

Make = Callable[[Path, Progress], tuple[Arrays, int]]


def cached(name: str, version: str, source: str, make: Make) -> Dataset:
    """Read a data set from the cache; make its entry first if that is missing or damaged.

    Args:
        name: The TFDS name.
        version: The version of the data set.
        source: The SHA-256 of the source, in hexadecimal. An entry is only used for the source that it was made from.
        make: Returns the arrays and the number of classes. It is given an empty working folder, which is removed
            afterwards, and the progress bar to report to.

    Returns:
        The data set.

    Raises:
        InputError: ``make`` raised it, or there is no folder to work in.
    """
    from jax_s6 import backend  # here, because it imports JAX, which programs that never use the cache do without

    folder = backend.cache_folder()
    file_name = f"{name.replace('/', '-')}-{re.sub('[^0-9.]', '', version)}-{source[:16]}.npz"
    dataset = _read(folder / file_name, name) if folder else None
    if dataset is not None:
        return dataset
    scratch, in_cache = _scratch(folder)
    with scratch, _progress() as progress:
        dataset = Dataset.of(name, *make(Path(scratch.name), progress))
        if folder and in_cache:
            _write(folder / file_name, dataset, Path(scratch.name))
    return dataset


def _read(path: Path, name: str) -> Dataset | None:
    """Return an entry, or None if it is missing or damaged."""
    try:
        with open(path, "rb") as file, np.load(file) as fields:  # np.load(path) would not close it after an error
            dataset = Dataset.of(name, {role: fields[role] for role in ROLES}, int(fields["num_classes"]))
            if dataset.checksum == str(fields["checksum"]):
                return dataset
        reason = "wrong checksum"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # zipfile and NumPy raise a dozen kinds of errors for a damaged file
        reason = str(error) or type(error).__name__
    _logger.warning("the cache file %s is unusable (%s), so it is made again", path, reason)
    return None


def _write(path: Path, dataset: Dataset, scratch: Path) -> None:
    """Write an entry to the working folder, then move it to its place in one step."""
    try:
        np.savez(scratch / "entry.npz", **{name: value for name, value in vars(dataset).items() if name != "name"})
        os.replace(scratch / "entry.npz", path)
    except OSError as error:
        _logger.warning("cannot write %s (%s), so the images will be prepared again", path, error.strerror)


def _scratch(folder: Path | None) -> tuple["tempfile.TemporaryDirectory[str]", bool]:
    """Make a working folder inside the cache folder, or elsewhere if that cannot be written to.

    Returns:
        The working folder, and whether it is inside the cache folder.
    """
    trouble = "there is no home folder for the cache"
    if folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{_SCRATCH}*"):  # by a process that was killed
                with contextlib.suppress(FileNotFoundError):  # another process may just have removed its own
                    if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                        shutil.rmtree(left, ignore_errors=True)
            return tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder, ignore_cleanup_errors=True), True
        except OSError as error:
            trouble = f"cannot write to the cache folder {folder} ({error.strerror})"
    mend = "name a writable folder with JAX_S6_CACHE"
    _logger.warning("%s, so the images are prepared again at every start; %s", trouble, mend)
    try:
        return tempfile.TemporaryDirectory(prefix=_SCRATCH, ignore_cleanup_errors=True), False
    except OSError as error:
        raise InputError(f"{trouble}, nor is there a temporary folder; {mend}") from error


def _progress() -> Progress:
    """Return a progress bar on standard error, which shows nothing unless that is a terminal."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not terminal, redirect_stdout=False, redirect_stderr=False)
