"""The folder that a run writes to: one run at a time, and none replaced by accident."""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import tyro
from filelock import FileLock, Timeout
from typing_extensions import Doc

from jax_s6.cli import read_config
from jax_s6.config import TrainConfig
from jax_s6.errors import InputError
from jax_s6.runs.checkpoints import FOLDER
from jax_s6.runs.files import make_folder, refuse_existing
from jax_s6.settings import flatten

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


def require_same(out: Path, config: TrainConfig, grid: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Check that the finished run in a folder is the one that was to be resumed.

    Args:
        out: The folder.
        config: The settings here; those that the grid names do not count.
        grid: The values of a sweep's settings.

    Raises:
        InputError: A setting differs, or the folder's files cannot be read.
    """
    theirs, here = (flatten(dataclasses.asdict(x)) for x in (read_config(out / "config.json"), config))
    try:
        their_grid = json.loads((out / "summary.json").read_text()).get("grid", {})
    except (OSError, ValueError, AttributeError):
        raise InputError(
            f"out {out} holds a summary.json that cannot be read: --overwrite to replace the run"
        ) from None
    settings = {name for name in here if name != "data_dir" and name not in grid and name not in their_grid}
    pairs = [(name, here[name], theirs.get(name)) for name in sorted(settings)]
    pairs.append(
        ("the grid", json.loads(json.dumps({name: list(values) for name, values in grid.items()})), their_grid)
    )
    for name, mine, other in pairs:
        if mine != other:
            raise InputError(
                f"{name} is {mine} here but {other} in the finished run in {out}: give another --out, or --overwrite to"
                " replace it"
            )


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
