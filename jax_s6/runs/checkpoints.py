"""The checkpoints of a run: one file each, complete or absent, written in the background.

``checkpoints/<epoch>.safetensors`` holds the arrays by name. Its metadata has one entry, ``checkpoint``, a JSON object
with the keys ``sha256``, ``format``, ``epoch``, ``score``, ``identity`` and ``about``. The SHA-256 is that of all bytes
of the file except its own 64 digits. Nothing that could run code is read.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from jax_s6.errors import InputError
from jax_s6.runs.files import make_folder, replacing
from jax_s6.settings import Setting, Settings

FOLDER = "checkpoints"
FORMAT = 3
_NO_DIGEST = "0" * 64
_DIGEST = re.compile(rb'(?<={\\"sha256\\": \\")([0-9a-f]{64})')
_KINDS = {"epoch": int, "score": float | int | None, "identity": dict, "about": dict}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Settings):
    """When checkpoints are written, and how many are kept."""

    checkpoint_every: Annotated[int, Setting("Epochs between checkpoints; the last epoch always has one.", 1)] = 1
    keep: Annotated[int, Setting("Number of newest checkpoints to keep; the best one is kept as well.", 1)] = 2

    def is_due(self, epoch: int, num_epochs: int) -> bool:
        """Return whether a run of ``num_epochs`` writes a checkpoint after ``epoch``."""
        return epoch % self.checkpoint_every == 0 or epoch == num_epochs


class DamagedError(Exception):
    """A checkpoint is not what was written; the message says why."""


class Checkpoint(NamedTuple):
    """The state of a run after an epoch.

    Attributes:
        epoch: Number of finished epochs.
        arrays: NumPy arrays by name.
        about: Results and counts; JSON values.
        score: The checkpoint with the highest score is the best one; None if there are no scores.
        identity: What must be the same when the run is resumed; JSON values by name.
    """

    epoch: int
    arrays: dict[str, np.ndarray]
    about: dict[str, Any]
    score: float | None
    identity: dict[str, Any]


class Store:
    """The checkpoints of one run in one folder. Only one process may write them."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int = CheckpointConfig.keep):
        """Prepare a store; call ``load`` or ``clear`` before the first ``save``.

        Args:
            folder: Where the checkpoints are.
            identity: What must be the same when the run is resumed, by name; JSON values.
            keep: Number of newest checkpoints to keep besides the best one.
        """
        self.folder, self._identity, self._keep = folder, json.loads(json.dumps(identity)), keep
        self._scores: dict[int, float | None] = {}
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def clear(self) -> None:
        """Remove all checkpoints and create the empty folder.

        Raises:
            InputError: The folder cannot be created.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        make_folder(self.folder)

    def load(self) -> Checkpoint | None:
        """Return the newest intact checkpoint, or None if there are none; warn of each damaged one.

        Raises:
            InputError: The checkpoint belongs to another run, or all checkpoints are damaged.
        """
        found = sorted(epochs(self.folder), reverse=True)
        for epoch in found:
            try:
                checkpoint = read(self._path(epoch))
            except DamagedError as error:
                _logger.warning("%s is damaged (%s): the one before it is used", self._path(epoch), error)
                continue
            self._require_same(checkpoint.identity)
            return checkpoint
        if found:
            raise InputError(f"every checkpoint in {self.folder} is damaged: start again with --overwrite")
        return None

    def save(
        self, epoch: int, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Write a checkpoint in the background, after waiting for the one before it.

        Args:
            epoch: Number of finished epochs, >= 1.
            arrays: By name; they must not change afterwards.
            about: JSON values.
            score: The checkpoint with the highest score is kept, the first one if several are equal.

        Raises:
            InputError: The checkpoint before it could not be written.
        """
        self.wait()
        body = {"format": FORMAT, "epoch": epoch, "score": score, "identity": self._identity, "about": about}
        self._pending = self._pool.submit(self._write, epoch, arrays, json.dumps({"sha256": _NO_DIGEST, **body}), score)

    def wait(self) -> None:
        """Wait until everything is written; raise InputError if the last checkpoint could not be."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{epoch}.safetensors"

    def _require_same(self, theirs: Mapping[str, Any]) -> None:
        """Raise InputError that names the first difference between this run and the run of a checkpoint."""
        for name in {**theirs, **self._identity}:
            here, there = self._identity.get(name), theirs.get(name)
            if here != there:
                raise InputError(
                    f"{name} is {_short(here)} here but {_short(there)} in the run in {self.folder}: resume with what"
                    " it was started with, or replace it with --overwrite"
                )

    def _write(self, epoch: int, arrays: Mapping[str, np.ndarray], text: str, score: float | None) -> None:
        write(self._path(epoch), arrays, text)
        self._scores[epoch] = score
        found = sorted(epochs(self.folder))
        best = max(found, key=lambda number: (self._score(number), -number))
        for old in found[: -self._keep]:
            if old != best or self._score(old) == -np.inf:
                with contextlib.suppress(OSError):
                    self._path(old).unlink()

    def _score(self, epoch: int) -> float:
        """Return the score of a checkpoint, from its file if this process did not write it."""
        with contextlib.suppress(DamagedError):
            if epoch not in self._scores:
                self._scores[epoch] = read(self._path(epoch)).score
        score = self._scores.setdefault(epoch, None)
        return -np.inf if score is None else score


def epochs(folder: Path) -> list[int]:
    """List the epochs that have a checkpoint in a folder, intact or not; other files are ignored."""
    names = (re.fullmatch(r"([1-9][0-9]*)\.safetensors", path.name) for path in folder.glob("*"))
    return [int(name[1]) for name in names if name]


def write(path: Path, arrays: Mapping[str, np.ndarray], text: str) -> None:
    """Write a checkpoint completely or not at all; the first key of ``text`` is ``sha256``, and its value zeros.

    Raises:
        InputError: It cannot be written.
    """
    if path.is_dir():
        shutil.rmtree(path)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # safetensors ignores strides
    head, tail = safetensors.numpy.save(arrays, {"checkpoint": text}).split(_NO_DIGEST.encode(), 1)
    digest = hashlib.sha256(head + tail).hexdigest().encode()
    with replacing(path, "earlier checkpoints are kept, so free disk space and resume with --resume") as part:
        part.write_bytes(head + digest + tail)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing is parsed before the checksum is known to be right.

    Raises:
        DamagedError: It cannot be read, has another checksum or lacks something.
    """
    try:
        content = path.read_bytes()
        head, digest, tail = [*_DIGEST.split(content, maxsplit=1), b"", b""][:3]
        if hashlib.sha256(head + tail).hexdigest().encode() != digest:
            raise DamagedError("its checksum is missing or wrong")
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        body = json.loads(header["__metadata__"]["checkpoint"])
        arrays = safetensors.numpy.load(content)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DamagedError(reason.partition("\n")[0]) from None
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise DamagedError(f"its format is not {FORMAT}")
    wrong = [name for name, kind in _KINDS.items() if name not in body or not isinstance(body[name], kind)]
    if wrong or str(body["epoch"]) != path.stem:
        raise DamagedError(f"it has no valid {', '.join(wrong) or 'epoch'}")
    return Checkpoint(arrays=arrays, **{name: body[name] for name in _KINDS})


def flatten(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    """Name the leaves of a tree: ``{"state.params.conv1.conv_0.kernel": array, ...}``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_leaf_name(path, prefix): np.asarray(leaf) for path, leaf in leaves}


def unflatten(template: Any, arrays: Mapping[str, np.ndarray], prefix: str) -> Any:
    """Reverse ``flatten``; ``template`` is a tree with the same structure, shapes and dtypes.

    Raises:
        InputError: An array is missing, or has another shape or dtype.
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


def _leaf_name(path: Any, prefix: str) -> str:
    return f"{prefix}.{jax.tree_util.keystr(path, simple=True, separator='.')}"


def _short(value: Any) -> str:
    """Return a setting as JSON, cut after 60 characters: it may be a checksum."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
