"""The files of one checkpoint: arrays written by Orbax, and a JSON file with everything else and all checksums.

    arrays/            what Orbax wrote: the bytes of all arrays, one after another, in one vector
    checkpoint.json    whose run it is, its results so far, the arrays' names, types and shapes, and the SHA-256 of
                       every file; then its own

One vector, since TensorStore, below Orbax, keeps some memory for each array that it ever wrote.
Nothing in a checkpoint is parsed before its SHA-256 is found right, and nothing that could run code is read.
"""

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

FORMAT = 2
MAX_TEXT = 1 << 26  # bytes of checkpoint.json that are read: 10,000 epochs have 5 MB
_OVERHEAD = 1 << 16  # bytes on the disk besides the arrays' own
_ARRAYS, _VECTOR, _TEXT = "arrays", "bytes", "checkpoint.json"


class DamagedError(Exception):
    """A checkpoint is not what was written; the message says why."""


def write(path: Path, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
    """Fills the empty folder ``path``.

    Args:
        path: The checkpoint's folder.
        arrays: By name, none of them empty.
        values: ``epoch``, ``score``, ``identity`` and ``about``: JSON values.

    Raises:
        OSError: Something cannot be written.
    """
    _reserve(path / "reserved", sum(array.nbytes for array in arrays.values()) + _OVERHEAD)
    vector, layout = _pack(arrays)
    _write_vector(path / _ARRAYS, vector)
    text = json.dumps({"format": FORMAT, **values, "layout": layout, "files": _checksums(path)}).encode()
    with open(path / _TEXT, "wb") as file:
        file.write(text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_text(path: Path) -> dict[str, Any]:
    """Reads and checks the JSON of the checkpoint in the folder ``path``.

    Returns:
        ``epoch``, ``score``, ``identity``, ``about``, ``layout`` and ``files``.

    Raises:
        DamagedError: It cannot be read, has another checksum or lacks something.
    """
    try:
        with open(path / _TEXT, "rb") as file:
            text, _, digest = file.read(MAX_TEXT).rstrip(b"\n").rpartition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != digest:
            raise DamagedError(f"{_TEXT} has another checksum")
        body = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{_TEXT}: {getattr(error, 'strerror', None) or error}") from None
    kinds = {"epoch": int, "identity": dict, "about": dict, "layout": dict, "files": dict}
    kinds |= {"score": float | int | None}
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise DamagedError(f"{_TEXT} is not of format {FORMAT}")
    wrong = [name for name, kind in kinds.items() if name not in body or not isinstance(body[name], kind)]
    if wrong or str(body["epoch"]) != path.name:
        raise DamagedError(f"{_TEXT} has no valid {', '.join(wrong) or 'epoch'}")
    return body


def read_arrays(path: Path, body: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reads a checkpoint's arrays, if its files are those that were written.

    Args:
        path: The checkpoint's folder.
        body: What ``read_text`` returned.

    Raises:
        DamagedError: They are not.
    """
    check_files(path, body["files"])
    try:
        with _orbax(path) as checkpointer:
            vector = checkpointer.restore(path.absolute() / _ARRAYS)[_VECTOR]
    except Exception as error:  # Orbax and TensorStore have no common exception; the checksums were right
        raise DamagedError(f"Orbax cannot read it: {_first_line(error)}") from None
    try:
        return _unpack(vector, body["layout"])
    except (TypeError, ValueError, OverflowError):
        raise DamagedError(f"{_TEXT} does not say what the vector holds") from None


def _pack(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
    """Joins arrays to one vector of bytes.

    Returns:
        uint8 ``[bytes]``, and the type and shape of each array by name, in the order in which they were joined.
    """
    layout = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
    return np.frombuffer(b"".join(array.tobytes() for array in arrays.values()), np.uint8), layout


def _unpack(vector: np.ndarray, layout: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Does the reverse of ``_pack``; raises TypeError, ValueError or OverflowError if the two do not fit."""
    arrays, data, used = {}, vector.tobytes(), 0
    for name, (dtype, shape) in layout.items():
        size = math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(data[used : used + size], dtype).reshape(shape).copy()
        used += size
    if used != len(data):
        raise ValueError("the vector holds more than the layout names")
    return arrays


def check_files(path: Path, files: Mapping[str, Any]) -> None:
    """Raises DamagedError unless the folder has these files, with these checksums, and no others.

    What the list names is never opened, only what is in the folder.
    """
    try:
        found = _checksums(path)
    except OSError as error:
        raise DamagedError(f"cannot be read: {error.strerror}") from None
    for name in {**files, **found}:
        if found.get(name) != files.get(name):
            trouble = "is missing" if name not in found else "has another checksum"
            raise DamagedError(f"{name!r} {trouble if name in files else 'does not belong there'}")


def _checksums(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file that Orbax wrote, by its path in the checkpoint."""
    digests = {}
    for file_path in sorted(path.rglob("*")):
        if file_path.is_file() and file_path != path / _TEXT:
            with open(file_path, "rb") as file:
                name = file_path.relative_to(path).as_posix()
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _reserve(path: Path, size: int) -> None:
    """Raises OSError unless the disk has room: where it has not, Orbax leaves a traceback for every array."""
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
    path.unlink()


def _write_vector(path: Path, vector: np.ndarray) -> None:
    """Writes a vector with Orbax.

    Raises:
        OSError: They cannot be written, whatever Orbax and TensorStore call it.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # Orbax logs a failed write as a traceback
    try:
        with _orbax(path) as checkpointer:
            checkpointer.save(path.absolute(), {_VECTOR: vector})
    except Exception as error:
        raise _as_os_error(error) from error
    finally:
        logger.setLevel(level)


def _orbax(path: Path) -> Any:
    """Returns Orbax's writer and reader, which in this process waits for no other one."""
    import orbax.checkpoint as ocp  # 0.2 s, in the background where a run starts

    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"{this}-{path.parent.name}"
    )
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(use_ocdbt=False, multiprocessing_options=alone), multiprocessing_options=alone
    )


def _as_os_error(error: Exception) -> OSError:
    """Finds the cause in TensorStore's message, in which it is the only number."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    return error if isinstance(error, OSError) else OSError(0, _first_line(error))


def sync(folder: Path) -> None:
    """Makes a rename in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:300]
