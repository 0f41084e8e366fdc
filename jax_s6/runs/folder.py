"""The folder that a run writes to: one run at a time, and none replaced by accident."""

import contextlib
import errno
import logging
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from filelock import FileLock, Timeout
from typing_extensions import Doc

from jax_s6.errors import InputError
from jax_s6.runs.checkpoints import FOLDER
from jax_s6.runs.files import make_folder, refuse_existing

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where the results go, and what happens to a run that is there."""

    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR"),
        Doc("Folder for the results. If not given: runs/<recipe>-<seed>, or runs/sweep for a sweep."),
    ] = None
    overwrite: Annotated[bool, Doc("Replace the run that is in the output folder.")] = False
    resume: Annotated[
        bool, Doc("Resume the unfinished run in the output folder, with the same flags; start one if there is none.")
    ] = False


def needs_work(out: Path, output: OutputConfig) -> bool:
    """Check that a run may be started or resumed in a folder, which need not exist.

    Returns:
        Whether there is something to do; False for a finished run that is to be resumed.

    Raises:
        InputError: The folder holds a run and neither ``resume`` nor ``overwrite`` is given, or both are given.
    """
    if output.resume and output.overwrite:
        raise InputError("resume continues a run and overwrite replaces it: give one of the two")
    if output.resume:
        return not os.path.exists(out / "summary.json")
    refuse_existing(out, output.overwrite)
    if not output.overwrite and os.path.exists(out / FOLDER):
        raise InputError(f"out {out} holds an unfinished run: --resume to resume it, --overwrite to replace it")
    return True


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Create the folder, keep other runs out of it, and remove the incomplete files of a killed run.

    The lock ends with its process; a lock file that is left behind by a killed process locks nothing.

    Raises:
        InputError: The folder cannot be written to, or another run is writing to it.
    """
    make_folder(out)
    lock = FileLock(out / LOCK, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"out {out} is being written by another run ({_holder(out)}): wait for it or give another --out"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise InputError(f"out {out} cannot be written to ({error.strerror}): give another folder") from None
        _logger.warning("this file system has no locks (%s): start only one run at a time in a folder", error.strerror)
    with contextlib.suppress(OSError):  # on a full disk the lock works without a name
        (out / LOCK).write_text(f"process {os.getpid()} on {platform.node()}")
    try:
        for left in (*out.glob(".*.part*"), *(out / FOLDER).rglob(".*.part*")):
            left.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            (out / LOCK).unlink()
        lock.release()


def _holder(out: Path) -> str:
    """Return who holds the lock, as far as that can be read."""
    with contextlib.suppress(OSError):
        return (out / LOCK).read_text(errors="replace")[:200] or "unknown"
    return "unknown"
