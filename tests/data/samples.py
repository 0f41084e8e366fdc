"""Small data sets as arrays, as IDX files and as folders that TFDS has prepared."""

import gzip
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from rich.progress import Progress
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.units import Size

from jax_s6.data import Dataset, idx, tfds_prepare, tfds_read

NAMES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
Arrays = dict[str, np.ndarray]


def small(train: int = 40, test: int = 20, seed: int = 0) -> Arrays:
    """A data set in which no two images are alike, so that a wrong order is noticed."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for split, count in (("train", train), ("test", test)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 10, count).astype(np.int32)
    return arrays


def encode_idx(array: np.ndarray) -> bytes:
    """Encode as IDX is defined: two zero bytes, the type, the number of dimensions, each size, then the items."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def encode(array: np.ndarray) -> bytes:
    """Encode images or labels as the official files are: IDX, compressed with gzip."""
    return gzip.compress(encode_idx(array.reshape(array.shape[:3])), 1)


def write_idx(folder: Path, arrays: Arrays, names: dict[str, str] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for role, array in arrays.items():
        (folder / names[role]).write_bytes(encode(array))
    return folder


def assert_same(dataset: Dataset, arrays: Arrays) -> None:
    for role, array in arrays.items():
        actual = getattr(dataset, role)
        assert actual.dtype == array.dtype and actual.shape == array.shape, role
        np.testing.assert_array_equal(actual, array, err_msg=role)
    assert dataset.checksum == hashlib.sha256(b"".join(arrays[role].tobytes() for role in idx.ROLES)).hexdigest()


def register(monkeypatch: pytest.MonkeyPatch, urls: dict[str, bytes]) -> None:
    """Put the contents of some URLs on TFDS's list of checksums."""
    infos = {
        url: checksums.UrlInfo(
            size=Size(len(body)), checksum=hashlib.sha256(body).hexdigest(), filename=url.split("/")[-1]
        )
        for url, body in urls.items()
    }
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: dict(infos))


def prepare_mnist(folder: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let TFDS prepare a small mnist in array_record format; return the folder of its version."""
    files = write_idx(folder / "files", arrays)
    builder = tfds_prepare._NumpyBuilder(data_dir=folder, file_format="array_record")
    builder.progress, builder.download_folder = Progress(disable=True), folder / "downloads"
    with monkeypatch.context() as patch, tfds_read.quiet():
        register(patch, {builder.URL + name: (files / name).read_bytes() for name in NAMES.values()})
        # TFDS uses files in its manual_dir instead of downloading them.
        builder.download_and_prepare(
            download_dir=builder.download_folder, download_config=tfds.download.DownloadConfig(manual_dir=files)
        )
    return Path(builder.data_dir)


def as_tfrecord(folder: Path) -> None:
    """Convert a prepared folder to tfrecord, which TFDS writes by default and for which it needs TensorFlow."""
    builder: Any = tfds.builder_from_directory(folder)
    for split in ("train", "test"):
        source = builder.as_data_source(split).data_source
        with open(folder / f"mnist-{split}.tfrecord-00000-of-00001", "wb") as file:
            for record in source.__getitems__(range(len(source))):
                file.write(struct.pack("<Q", len(record)) + bytes(4) + record + bytes(4))
    change_format(folder, "tfrecord")


def as_parquet(folder: Path, keep: slice = slice(None)) -> None:
    """Convert a prepared folder to parquet, with all or some of its examples."""
    import pyarrow
    import pyarrow.parquet

    builder: Any = tfds.builder_from_directory(folder)
    for split in ("train", "test"):
        source = builder.as_data_source(split).data_source
        table = pyarrow.table({"data": list(source.__getitems__(range(len(source))))[keep]})
        pyarrow.parquet.write_table(table, folder / f"mnist-{split}.parquet-00000-of-00001")
    change_format(folder, "parquet")


def change_format(folder: Path, file_format: str) -> None:
    for path in folder.glob("*.array_record-*"):
        path.unlink()
    edit_json(folder / "dataset_info.json", fileFormat=file_format)


def edit_json(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
