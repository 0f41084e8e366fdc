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
from typing import Annotated, Any

import tyro
from filelock import FileLock, Timeout
from typing_extensions import Doc

from jax_s6.config import TrainConfig
from jax_s6.errors import InputError
from jax_s6.runs.checkpoints import FOLDER
from jax_s6.runs.files import make_folder, refuse_existing
from jax_s6.settings import flatten, from_mapping

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


def require_same(out: Path, config: TrainConfig, grid: Mapping[str, Any] | None = None, prune: bool = False) -> None:
    """Check that the finished run in a folder is the one that was to be resumed.

    Args:
        out: The folder.
        config: The settings.
        grid: The grid of a sweep; None: it is a single run.
        prune: Whether the sweep drops lanes.

    Raises:
        InputError: One of these differs, or the folder's summary is damaged.
    """
    here = {**flatten(dataclasses.asdict(config)), "the grid": json.loads(json.dumps(grid)), "prune": prune}
    path = out / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        theirs = flatten(dataclasses.asdict(from_mapping(TrainConfig(), summary["config"], str(path))))
        theirs |= {"the grid": summary.get("grid"), "prune": "pruned_at" in summary.get("best_lane", ())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"out {out} holds a damaged summary.json: --overwrite to replace the run") from None
    for name in here:
        if here[name] != theirs[name] and name != "data_dir":  # the images count, not where they are
            raise InputError(
                f"{name} is {here[name]} here but {theirs[name]} in the finished run in {out}: give another --out, or"
                " --overwrite to replace it"
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
