"""Reads prepared TFDS folders with TensorFlow Datasets (TFDS), and nothing that needs TensorFlow.

Importing this module takes a second and more, so ``data.py`` does it only where its cache has no answer.
"""

import contextlib
import io
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from rich.progress import Progress
from tensorflow_datasets.core import hashing

from jax_s6.data import idx
from jax_s6.errors import InputError

_BATCH = 1000  # records one by one cost 450 us each, in batches 120 us
_IMAGE_SHAPE = (idx.IMAGE_SIZE, idx.IMAGE_SIZE, 1)


def read_prepared(folder: Path, progress: Progress) -> tuple[dict[str, np.ndarray], int]:
    """Reads a prepared TFDS folder, written in array_record, parquet or tfrecord by whomever.

    Args:
        folder: A version's folder, the one with ``dataset_info.json``.
        progress: Shows what happens.

    Returns:
        The arrays by ``idx.ROLES``, images uint8 ``[n, 28, 28, 1]`` and labels int32 ``[n]``, in the order of the
        files that TFDS prepared them from; and the number of classes.

    Raises:
        InputError: The folder is damaged, or not of the MNIST family.
    """
    try:
        with quiet():
            builder: Any = tfds.builder_from_directory(folder)
            num_classes = builder.info.features["label"].num_classes
            idx.check_classes(num_classes, str(folder))
            arrays = {}
            for split in ("train", "test"):
                arrays[f"{split}_images"], arrays[f"{split}_labels"] = _read_split(builder, split, progress)
    except InputError:
        raise
    except Exception as error:  # TFDS, its record readers and Pillow raise what they like for a damaged file
        raise InputError(
            f"cannot read the prepared TFDS folder {folder}: {first_line(error)}; prepare it again, or name another"
            " folder with --data-dir"
        ) from error
    return arrays, num_classes


def _read_split(builder: Any, split: str, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a split into arrays, in the official order."""
    count = builder.info.splits[split].num_examples
    if not 1 <= count <= idx.MAX_ITEMS:
        raise ValueError(f"{split} has {count} examples, allowed are 1 to {idx.MAX_ITEMS}")
    images, labels = np.empty((count, *_IMAGE_SHAPE), np.uint8), np.empty(count, np.int32)
    order = _official_order(builder, split, count)
    examples = progress.track(_examples(builder, split), total=count, description=f"{builder.name}: reading")
    read = 0
    for read, example in enumerate(examples, start=1):
        if example["image"].shape != _IMAGE_SHAPE or example["image"].dtype != np.uint8:
            raise ValueError(f"an image is {example['image'].dtype} {example['image'].shape}, not uint8 {_IMAGE_SHAPE}")
        if read <= count:
            images[order[read - 1]], labels[order[read - 1]] = example["image"], example["label"]
    if read != count:  # TFDS 4.9.10 loses 94 % of the examples when it writes parquet (file_adapters._batched)
        raise ValueError(f"{split} holds {read} of its {count} examples")
    if labels.min() < 0 or labels.max() >= builder.info.features["label"].num_classes:
        raise ValueError(f"{split} has a label outside its classes")
    return images, labels


def _official_order(builder: Any, split: str, count: int) -> list[int]:
    """Returns, for each record, its index in the file that TFDS prepared it from.

    TFDS sorts records by a hash of their key, salted with the split's name; the key of its MNIST builders is the
    index. The hash is fixed for ever: another one would need new versions of all data sets (``core/hashing.py``).
    """
    if builder.info.disable_shuffling:
        return list(range(count))
    hasher = hashing.Hasher(split)
    return sorted(range(count), key=hasher.hash_key)


def _examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yields the decoded examples of a split as they lie in its files."""
    try:
        source = builder.as_data_source(split)
    except NotImplementedError:  # no random access: TFDS would read it with TensorFlow
        if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
            raise ValueError(f"its file format, {builder.info.file_format.value}, needs TensorFlow") from None
        for path in builder.info.splits[split].filepaths:
            yield from map(builder.info.features.deserialize_example_np, _tfrecords(Path(path)))
        return
    for start in range(0, len(source), _BATCH):
        yield from source.__getitems__(range(start, min(start + _BATCH, len(source))))


def _tfrecords(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file: length, its checksum, the bytes, their checksum.

    The checksums (CRC-32C, for which there is no code here) are not compared.
    """
    data = memoryview(path.read_bytes())
    while data:
        end = 12 + struct.unpack_from("<Q", data)[0]
        if end + 4 > len(data):
            raise ValueError(f"{path.name} ends in the middle of a record")
        yield bytes(data[12:end])
        data = data[end + 4 :]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TFDS's prints off standard output, and its bars and advice off standard error."""
    tfds.disable_progress_bar()  # for good: TFDS does not tell whether they were on
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """Returns what an error says for itself, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return repr(error) if isinstance(error, KeyError) or not text else text.splitlines()[0]
