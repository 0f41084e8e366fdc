"""The folder that a run writes to: one run at a time, and none replaced by accident."""

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from jax_s6.runs.files import make_folder
from jax_s6.runs.files import refuse_existing
from jax_s6.runs import checkpoints as checkpoint
from jax_s6.errors import InputError

LOCK = ".lock"
_logger = logging.getLogger(__name__)


def needs_work(out: Path, *, resume: bool, overwrite: bool) -> bool:
    """Checks that a run may begin, or go on, in a folder.

    Args:
        out: The folder, which need not exist.
        resume: Go on with the run in it; it begins where there is none, so that one command can be repeated.
        overwrite: Replace the run in it.

    Returns:
        Whether there is something to do; False for a complete run that is to be resumed.

    Raises:
        InputError: The folder holds a run and nothing is said about it, or too much.
    """
    if resume and overwrite:
        raise InputError("resume goes on with a run and overwrite replaces it: give one of the two")
    if resume:
        return not os.path.exists(out / "summary.json")
    refuse_existing(out, overwrite)
    if not overwrite and os.path.exists(out / checkpoint.FOLDER):
        raise InputError(f"out {out} holds an unfinished run: --resume to go on with it, --overwrite to replace it")
    return True


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it; removes what a killed one left half-written.

    Raises:
        InputError: It cannot be written to, or another run is writing to it.
    """
    make_folder(out)
    descriptor = _lock(out)
    try:
        for left in out.glob(".*.part*"):
            left.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            (out / LOCK).unlink()
        os.close(descriptor)


def _lock(out: Path) -> int:
    """Locks a folder and returns the lock's file descriptor.

    The kernel frees the lock when its process ends, however it ends: a file that is left is no lock.
    """
    while True:
        try:
            descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(f"out {out} cannot be written to ({error.strerror}): give another folder") from None
        if not _try_lock(descriptor):
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise InputError(f"out {out} is being written by another run ({holder}): wait for it or give another --out")
        if _is_at(out / LOCK, descriptor):
            with contextlib.suppress(OSError):  # on a full disk it is a lock without a name
                os.truncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
            return descriptor
        os.close(descriptor)  # its holder has just removed it


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl  # not on Windows
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _logger.warning("this file system has no locks (%s): start one run at a time in a folder", error.strerror)
    return True
