"""Read folders that TensorFlow Datasets (TFDS) has prepared, without TensorFlow.

Importing this module takes more than a second, so ``sources.py`` does it only for what is not in the cache.
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

_BATCH = 1000  # a record takes 450 us when read alone, 120 us in a batch
_IMAGE_SHAPE = (idx.IMAGE_SIZE, idx.IMAGE_SIZE, 1)


def read_prepared(folder: Path, progress: Progress) -> tuple[idx.Arrays, int]:
    """Read a prepared TFDS folder in array_record, parquet or tfrecord format, whichever program wrote it.

    Args:
        folder: The folder of one version, which contains ``dataset_info.json``.
        progress: The progress bar to report to.

    Returns:
        The arrays, in the order of the files that they were prepared from, and the number of classes.

    Raises:
        InputError: The folder is damaged, or its data set is not like MNIST.
    """
    try:
        with quiet():
            builder: Any = tfds.builder_from_directory(folder)
            num_classes = builder.info.features["label"].num_classes
            idx.check_classes(num_classes, str(folder))
            arrays: idx.Arrays = {}
            for split in ("train", "test"):
                arrays[f"{split}_images"], arrays[f"{split}_labels"] = _read_split(builder, split, progress)
    except InputError:
        raise
    except Exception as error:  # TFDS, its record readers and Pillow raise any kind of error for a damaged file
        raise InputError(
            f"cannot read the prepared TFDS folder {folder}: {first_line(error)}; prepare it again, or name another"
            " folder with --data-dir"
        ) from error
    return arrays, num_classes


def _read_split(builder: Any, split: str, progress: Progress) -> tuple[idx.Images, idx.Labels]:
    """Decode a split into arrays, in the official order."""
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
    """Return for each record its index in the file that TFDS prepared it from.

    TFDS sorts records by a hash of their key, salted with the split's name. The key of its MNIST builders is the
    index. The hash will not change: all data sets would need new versions if it did (``core/hashing.py``).
    """
    if builder.info.disable_shuffling:
        return list(range(count))
    hasher = hashing.Hasher(split)
    return sorted(range(count), key=hasher.hash_key)


def _examples(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yield the decoded examples of a split in the order of its files."""
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
    """Yield the records of a TFRecord file: length, its checksum, the bytes, their checksum.

    The checksums are not verified: they are CRC-32C, which Python's standard library does not have.
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
    """Keep TFDS's messages off standard output, and its progress bars and advice off standard error."""
    tfds.disable_progress_bar()  # permanently: TFDS does not tell whether they were on
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    text = getattr(error, "strerror", None) or str(error)
    return repr(error) if isinstance(error, KeyError) or not text else text.splitlines()[0]
