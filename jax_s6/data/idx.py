"""The IDX format, in which the MNIST family is published: find the four files of a folder, check and read them.

No file is trusted: its header limits what is read, and ``MAX_ITEMS`` limits what the header may promise. Which folder
is read, and when, is decided in ``sources.py``.
"""

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from jax_s6.errors import InputError

IMAGE_SIZE = 28
MAX_ITEMS = 1_000_000  # the largest split of the family, EMNIST's byclass, has 697,932
MAX_CLASSES = 16  # the outputs of the network
NUM_CLASSES = 10  # of mnist, fashion_mnist, kmnist and emnist/digits
ROLES = ("train_images", "train_labels", "test_images", "test_labels")
Images = UInt8[np.ndarray, "_ 28 28 1"]
Labels = Int32[np.ndarray, "_"]
Arrays = dict[str, Images | Labels]  # by ROLES
_CHUNK = 1 << 20  # a read of n bytes allocates them at once, so a header that lies would cost memory
_MEND = "fetch it again, or name another folder with --data-dir"


def find_files(folder: Path, dataset: str) -> dict[str, Path] | None:
    """Find the four IDX files of a data set, compressed or not, by any of the names in use.

    Args:
        folder: The folder that holds them, not one of its parents.
        dataset: The TFDS name. Files of ``emnist/digits`` may have their own prefix, ``emnist-digits-``.

    Returns:
        The paths by ``ROLES``; None if there is no such file at all.

    Raises:
        InputError: Some of the four are missing, or the folder cannot be listed.
    """
    try:
        names = {path.name for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {error.strerror}; name another with --data-dir") from error
    prefixes = [dataset.replace("/", "-") + "-", ""] if "/" in dataset else [""]
    for prefix in prefixes:
        spellings = {role: _spellings(prefix, *role.split("_")) for role in ROLES}
        found = {role: name for role in ROLES if (name := next((n for n in spellings[role] if n in names), ""))}
        missing = [spellings[role][0] for role in ROLES if role not in found]
        if found and missing:
            raise InputError(f"the folder {folder} lacks {' and '.join(missing)}; all four IDX files must be there")
        if found:
            return {role: folder / name for role, name in found.items()}
    return None


def read_files(files: dict[str, Path]) -> tuple[Arrays, int]:
    """Read the files that ``find_files`` found; return the arrays and the number of classes, which is at least 10."""
    arrays: Arrays = {}
    for split in ("train", "test"):
        images, labels = read_split(files[f"{split}_images"], files[f"{split}_labels"])
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return arrays, max(NUM_CLASSES, *(int(arrays[f"{split}_labels"].max()) + 1 for split in ("train", "test")))


def read_split(images_path: Path, labels_path: Path) -> tuple[Images, Labels]:
    """Read the images of a split and their labels.

    Args:
        images_path: An IDX file of magic number 2051, gzip-compressed or not.
        labels_path: An IDX file of magic number 2049, gzip-compressed or not.

    Returns:
        The images as the file stores them, and the labels in ``[0, 16)``.

    Raises:
        InputError: A file cannot be read, contradicts its own header or does not fit the other file.
    """
    images = read_array(images_path, (IMAGE_SIZE, IMAGE_SIZE))[..., np.newaxis]
    labels = read_array(labels_path, ())
    if len(images) != len(labels):
        raise InputError(f"{images_path} has {len(images)} images but {labels_path} has {len(labels)} labels; {_MEND}")
    check_classes(int(labels.max()) + 1, str(labels_path))
    return images, labels.astype(np.int32)


def check_classes(num_classes: int, where: str) -> None:
    """Raise InputError unless the network has an output for every class."""
    if not 1 <= num_classes <= MAX_CLASSES:
        raise InputError(
            f"{where} has {num_classes} classes, which do not fit the network's {MAX_CLASSES} outputs; name another"
            " folder with --data-dir"
        )


def read_array(path: Path, item_shape: tuple[int, ...]) -> UInt8[np.ndarray, "n ..."]:
    """Read an IDX file of unsigned bytes.

    Args:
        path: The file, gzip-compressed or not, whatever its name says.
        item_shape: The shape of one item: ``(28, 28)`` for images, ``()`` for labels.

    Returns:
        The items, between 1 and ``MAX_ITEMS``.

    Raises:
        InputError: The file cannot be read, or its magic number, its sizes or its length are wrong.
    """
    try:
        with _open(path) as file:
            count = _count(path, _read(file, 8 + 4 * len(item_shape)), item_shape)
            # One byte more than promised shows whether the file is too long, and makes gzip verify its checksum.
            data = _read(file, count * math.prod(item_shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {path}: {reason}; {_MEND}") from error
    if len(data) != count * math.prod(item_shape):
        more = "more" if len(data) > count * math.prod(item_shape) else f"only {len(data) // math.prod(item_shape)}"
        raise InputError(f"{path} promises {count} items in its header and holds {more}; {_MEND}")
    return np.frombuffer(data, np.uint8).reshape(count, *item_shape)


def _spellings(prefix: str, split: str, part: str) -> list[str]:
    """List the names that one of the four files may have, the best known first."""
    test_splits = ["test", "t10k"] if prefix else ["t10k", "test"]
    return [
        f"{prefix}{name}-{part}{separator}idx{3 if part == 'images' else 1}-ubyte{suffix}"
        for name in (test_splits if split == "test" else ["train"])
        for separator in "-."
        for suffix in (".gz", "")
    ]


def _open(path: Path) -> io.BufferedIOBase:
    """Open a file for reading, through gzip if it starts with gzip's magic number."""
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else open(path, "rb")


def _read(file: io.BufferedIOBase, size: int) -> bytearray:
    """Read ``size`` bytes, or fewer at the end of the file."""
    data = bytearray()
    while len(data) < size:
        chunk = file.read(min(_CHUNK, size - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def _count(path: Path, header: bytearray, item_shape: tuple[int, ...]) -> int:
    """Check all of a header and return the number of items that it promises."""
    fields = np.frombuffer(header[: len(header) // 4 * 4], ">u4").tolist()
    magic = 0x0800 + 1 + len(item_shape)  # unsigned bytes, then the number of dimensions
    kinds = {2049: "labels", 2051: "images"}
    if len(fields) < 2 + len(item_shape) or fields[0] != magic:
        got = f"{fields[0]} ({kinds.get(fields[0], 'not of the MNIST family')})" if fields else "no header"
        raise InputError(f"{path} must be an IDX file of {kinds[magic]} with magic number {magic}, got {got}; {_MEND}")
    if tuple(fields[2:]) != item_shape:
        sizes = "x".join(map(str, fields[2:]))
        raise InputError(f"{path} has images of {sizes}, allowed are {IMAGE_SIZE}x{IMAGE_SIZE}")
    if not 1 <= fields[1] <= MAX_ITEMS:
        raise InputError(f"{path} promises {fields[1]} items in its header, allowed are 1 to {MAX_ITEMS}; {_MEND}")
    return fields[1]
