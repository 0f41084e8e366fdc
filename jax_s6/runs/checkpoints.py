"""The checkpoints of a run: written while it goes on, each there whole or not at all, the newest and the best kept."""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_s6.runs.checkpoint_files import DamagedError, read_arrays, read_text, sync, write
from jax_s6.errors import InputError

FOLDER = "checkpoints"
_WRITING = ".writing"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is kept, and how often."""

    checkpoint_every: int = 1
    """Epochs between checkpoints, >= 1; the last epoch always leaves one."""
    keep: int = 2
    """How many checkpoints are kept, >= 1: the newest, and besides them the best."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")

    def is_due(self, epoch: int, num_epochs: int) -> bool:
        """Whether a run of ``num_epochs`` leaves a checkpoint after ``epoch`` of them."""
        return epoch % self.checkpoint_every == 0 or epoch == num_epochs


class Checkpoint(NamedTuple):
    """What was known after an epoch.

    Attributes:
        epoch: Epochs done.
        arrays: NumPy arrays by name.
        about: Results and counts, as JSON has them.
    """

    epoch: int
    arrays: dict[str, np.ndarray]
    about: dict[str, Any]


class Store:
    """The checkpoints of one run in one folder, of which one process is the writer."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int = CheckpointConfig.keep):
        """Names the folder; ``load`` or ``clear`` prepares it for writing.

        Args:
            folder: Where the checkpoints are.
            identity: What must be the same when the run goes on, by name; JSON values.
            keep: How many of the newest are kept besides the best.
        """
        self.folder, self._identity, self._keep = folder, json.loads(json.dumps(identity)), keep
        self._scores: dict[int, float] = {}
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def clear(self) -> None:
        """Makes the folder, empty.

        Raises:
            InputError: It cannot be made.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        with _said_in_a_sentence(self.folder):
            self.folder.mkdir(parents=True)

    def load(self) -> Checkpoint | None:
        """Returns the newest intact checkpoint, with a warning for each damaged one; None if there never was one.

        Raises:
            InputError: It is of another run, or all are damaged.
        """
        damaged = []
        for epoch in sorted(epochs(self.folder), reverse=True):
            try:
                body = read_text(self.folder / str(epoch))
                self._require_same(body["identity"])
                arrays = read_arrays(self.folder / str(epoch), body)
            except DamagedError as error:
                damaged.append(epoch)
                _logger.warning("%s is damaged (%s): the one before it is used", self.folder / str(epoch), error)
                continue
            return Checkpoint(epoch, arrays, body["about"])
        if damaged:
            raise InputError(f"every checkpoint in {self.folder} is damaged: start again with --overwrite")
        return None

    def save(
        self, epoch: int, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Writes a checkpoint in the background, once the one before it is written.

        Args:
            epoch: Epochs done, >= 1.
            arrays: By name, none empty; they must not change any more.
            about: JSON values.
            score: The checkpoint with the highest one is kept, the first of equals; None for none.

        Raises:
            InputError: The one before it could not be written.
        """
        self.wait()
        self._pending = self._pool.submit(self._write, epoch, arrays, json.loads(json.dumps(about)), score)

    def wait(self) -> None:
        """Waits until all is written.

        Raises:
            InputError: It could not be.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _require_same(self, theirs: Mapping[str, Any]) -> None:
        """Raises InputError that names the first difference between the run here and that of a checkpoint."""
        for name in {**theirs, **self._identity}:
            here, there = self._identity.get(name), theirs.get(name)
            if here != there:
                raise InputError(
                    f"{name} is {_short(here)} here but {_short(there)} in the run in {self.folder}: resume with what"
                    " it was started with, or replace it with --overwrite"
                )

    def _write(self, epoch: int, arrays: Mapping[str, np.ndarray], about: Any, score: float | None) -> None:
        part, target = self.folder / _WRITING / str(epoch), self.folder / str(epoch)
        with _said_in_a_sentence(target):
            shutil.rmtree(part.parent, ignore_errors=True)
            part.parent.mkdir()  # without parents: a folder that vanished is not made again
            part.mkdir()
            write(part, arrays, {"epoch": epoch, "score": score, "identity": self._identity, "about": about})
            if target.exists():  # damaged, or the run went back before it
                os.replace(target, part.parent / "replaced")
            os.replace(part, target)
            sync(self.folder)
            shutil.rmtree(part.parent, ignore_errors=True)
        if score is not None:
            self._scores[epoch] = score
        self._remove_old()

    def _remove_old(self) -> None:
        """Removes all but the newest and the best."""
        found = sorted(epochs(self.folder))
        best = max(found, key=lambda epoch: (self._score(epoch), -epoch), default=0)
        for epoch in found[: -self._keep]:
            if epoch != best or self._score(epoch) == -np.inf:
                shutil.rmtree(self.folder / str(epoch), ignore_errors=True)

    def _score(self, epoch: int) -> float:
        if epoch not in self._scores:
            try:
                score = read_text(self.folder / str(epoch))["score"]
            except DamagedError:
                score = None
            self._scores[epoch] = -np.inf if score is None else score
        return self._scores[epoch]


def epochs(folder: Path) -> list[int]:
    """Lists the epochs of which a folder has a checkpoint, intact or not."""
    with contextlib.suppress(OSError):
        return [int(path.name) for path in folder.iterdir() if path.name.isascii() and path.name.isdecimal()]
    return []


def flatten(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    """Names the leaves of a tree: ``{"state.params.conv1.conv_0.kernel": array, ...}``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_leaf_name(path, prefix): np.asarray(leaf) for path, leaf in leaves}


def unflatten(template: Any, arrays: Mapping[str, np.ndarray], prefix: str) -> Any:
    """Builds a tree like ``template``, of which only shapes and types are read, from what ``flatten`` returned.

    Raises:
        InputError: An array is missing, or has another shape or type.
    """

    def leaf(path: Any, expected: Any) -> np.ndarray:
        name = _leaf_name(path, prefix)
        got = arrays.get(name)
        if got is None or got.shape != expected.shape or got.dtype != expected.dtype:
            found = "missing" if got is None else f"{got.dtype}{list(got.shape)}"
            wanted = f"{expected.dtype}{list(expected.shape)}"
            raise InputError(f"{name} must be {wanted} in a checkpoint, but is {found}: start again with --overwrite")
        return got

    return jax.tree_util.tree_map_with_path(leaf, template)


@contextlib.contextmanager
def _said_in_a_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"the checkpoint {path} cannot be written ({reason}), those before it are kept: free the disk, or mend the"
            " folder, and go on with --resume"
        ) from None


def _leaf_name(path: Any, prefix: str) -> str:
    return f"{prefix}.{jax.tree_util.keystr(path, simple=True, separator='.')}"


def _short(value: Any) -> str:
    """Shows a setting, or the beginning of a long one, such as a checksum."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
