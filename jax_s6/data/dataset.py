"""The data sets, as arrays: where they come from, and the cache that makes the second start quick.

The source is, in this order: the folder that the user names (a prepared TFDS folder or IDX files), the user's TFDS
folder if the set is prepared there, and TFDS's own files, which the package ships for MNIST and TFDS downloads for the
others. What took TFDS to read is kept as plain arrays in the cache, and TFDS is imported only where they are missing.
"""

import hashlib
import importlib.util
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from jax_s6.config import DataConfig
from jax_s6.data import cache as data_cache
from jax_s6.data import idx
from jax_s6.errors import InputError

# TFDS's versions, here because to ask TFDS takes a second; a test compares them with its builders.
VERSIONS = {"mnist": "3.0.1", "fashion_mnist": "3.0.1", "kmnist": "3.0.1", "emnist/digits": "3.1.0"}
EMBEDDED = Path(__file__).parent / "_mnist"
_NUM_CLASSES = 10  # of all four sets
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Attributes:
        name: The TFDS name.
        train_images: uint8 ``[n, 28, 28, 1]``, in ``[0, 255]``, in the order of the official files.
        train_labels: int32 ``[n]``, in ``[0, num_classes)``.
        test_images: uint8 ``[m, 28, 28, 1]``.
        test_labels: int32 ``[m]``.
        num_classes: At most 16, the network's outputs.
        checksum: The SHA-256 of the four arrays' bytes, in the order above; a resumed run compares it.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    checksum: str


def load(config: DataConfig) -> Dataset:
    """Loads a data set, all of it: ``holdout`` is for ``split_holdout``.

    Images are oriented as TFDS gives them, those of EMNIST therefore transposed.

    Args:
        config: Which set, and from where.

    Returns:
        The training and test arrays.

    Raises:
        InputError: The data cannot be had, or is damaged, or does not fit the network.
    """
    if config.data_dir is not None:
        return _load_folder(_expand(config.data_dir), config.dataset)
    try:
        prepared = _find_prepared(_expand(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"), config.dataset)
        if prepared is not None:
            return _load_prepared(prepared, config.dataset)
    except InputError as error:
        _logger.warning("%s (TFDS's own files are used instead)", error)
    return _load_stock(config.dataset)


def split_holdout(dataset: Dataset, holdout: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keeps the last training images for validation.

    Args:
        dataset: What ``load`` returned.
        holdout: How many, in ``[0, number of training images)``.

    Returns:
        The remaining training images and labels, and the images and labels held out.

    Raises:
        InputError: Nothing would remain for training.
    """
    count = len(dataset.train_images)
    if not 0 <= holdout < count:
        raise InputError(f"holdout must be >= 0 and < {count}, the training images of {dataset.name}, got {holdout}")
    cut = count - holdout
    images, labels = dataset.train_images, dataset.train_labels
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def _expand(path: str | Path) -> Path:
    """Replaces a leading ``~``, and leaves it where there is no such home."""
    return Path(os.path.expanduser(path))


def _load_folder(folder: Path, dataset: str) -> Dataset:
    """Loads from the folder that the user named."""
    if not folder.is_dir():
        trouble = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"data_dir must be a prepared TFDS folder or hold IDX files, but {folder} {trouble}")
    prepared = _find_prepared(folder, dataset)
    if prepared is not None:
        return _load_prepared(prepared, dataset)
    files = idx.find_files(folder, dataset)
    if files is None:
        raise InputError(
            f"data_dir must have the four IDX files of {dataset} (train-images-idx3-ubyte.gz, ...) or be a prepared"
            f" TFDS folder with {dataset}/VERSION/dataset_info.json, but {folder} has neither"
        )
    # Not cached: to unpack 70,000 images takes 0.27 s, of which a cache would save 0.19 s.
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        images, labels = idx.read_split(files[f"{split}_images"], files[f"{split}_labels"])
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    num_classes = max(_NUM_CLASSES, *(int(arrays[f"{split}_labels"].max()) + 1 for split in ("train", "test")))
    return Dataset(name=dataset, **arrays, num_classes=num_classes, checksum=data_cache.checksum(arrays))


def _load_stock(dataset: str) -> Dataset:
    """Loads what TFDS itself would download; MNIST's files are in the package."""
    name = dataset.partition("/")[0]
    spec = importlib.util.find_spec("tensorflow_datasets")
    assert spec is not None and spec.submodule_search_locations
    checksums = Path(spec.submodule_search_locations[0]) / "url_checksums" / f"{name}.txt"
    source = hashlib.sha256(checksums.read_bytes()).hexdigest()

    def make(scratch: Path, progress: Progress) -> tuple[dict[str, np.ndarray], int]:
        from jax_s6.data import tfds_prepare, tfds_read

        embedded = EMBEDDED if name == "mnist" else None
        if embedded is not None and idx.find_files(embedded, dataset) is None:  # TFDS would try to download them
            raise InputError(f"the folder {embedded} lacks the files of {dataset}; install jax_s6 again")
        prepared = tfds_prepare.prepare(dataset, scratch, progress, files=embedded)
        return tfds_read.read_prepared(prepared, progress)

    return _load_cached(dataset, VERSIONS[dataset], source, make)


def _load_prepared(folder: Path, dataset: str) -> Dataset:
    """Loads a version's folder that TFDS has prepared."""
    try:
        info = json.loads((folder / "dataset_info.json").read_bytes())
        name = "/".join(info[part] for part in ("name", "configName") if info.get(part))
        if name != dataset:
            raise InputError(f"dataset is {dataset}, but the prepared TFDS folder {folder} holds {name!r}")
        source = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with open(path, "rb") as file:
                source.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    except InputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"cannot read the prepared TFDS folder {folder}: {error}; prepare it again") from error

    def make(scratch: Path, progress: Progress) -> tuple[dict[str, np.ndarray], int]:
        from jax_s6.data import tfds_read

        return tfds_read.read_prepared(folder, progress)

    return _load_cached(dataset, str(info.get("version")), source.hexdigest(), make)


def _load_cached(dataset: str, version: str, source: str, make: data_cache.Make) -> Dataset:
    """Loads from the cache, under a key that changes with the data set, its version and its source."""
    key = f"{dataset.replace('/', '-')}-{re.sub('[^0-9.]', '', version)}-{source[:16]}"
    entry = data_cache.cached(key, make)
    return Dataset(name=dataset, **entry.arrays, num_classes=entry.num_classes, checksum=entry.checksum)


def _find_prepared(root: Path, dataset: str) -> Path | None:
    """Finds a version's folder: ``root`` itself, or the newest one in ``root/dataset`` or in ``root``."""
    try:
        if (root / "dataset_info.json").is_file():
            return root
        for parent in (root / dataset, root):
            names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
            versions = [name for name in names if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", name)]
            versions = [name for name in versions if (parent / name / "dataset_info.json").is_file()]
            if versions:
                return parent / max(versions, key=lambda name: tuple(map(int, name.split("."))))
    except OSError as error:
        raise InputError(
            f"cannot look into {error.filename}: {error.strerror}; name another folder with --data-dir"
        ) from error
    return None
