"""Where a data set comes from.

The sources are, in this order: the folder that the user names (a prepared TFDS folder or IDX files); the user's TFDS
folder, if the data set is prepared there; and the files that TFDS lists, which the package contains for MNIST and
which TFDS downloads for the others. Arrays that take long to read are kept in the cache. TFDS is imported only where
it has to read or to download.
"""

import hashlib
import importlib.util
import json
import logging
import os
import re
from pathlib import Path

from rich.progress import Progress

from jax_s6.config import DataConfig
from jax_s6.data import idx
from jax_s6.data.cache import cached
from jax_s6.data.dataset import Dataset
from jax_s6.errors import InputError

# The versions of TFDS's builders. They are written down because asking TFDS takes a second; a test compares them.
VERSIONS = {"mnist": "3.0.1", "fashion_mnist": "3.0.1", "kmnist": "3.0.1", "emnist/digits": "3.1.0"}
EMBEDDED = Path(__file__).parent / "_mnist"
_logger = logging.getLogger(__name__)


def load(config: DataConfig) -> Dataset:
    """Load a data set from the first source that has it.

    Images have TFDS's orientation, so those of EMNIST are transposed.

    Args:
        config: Which data set, and from which folder. ``holdout`` is ignored: ``split_holdout`` applies it.

    Returns:
        All training and test images.

    Raises:
        InputError: The data are not available, are damaged or do not fit the network.
    """
    if config.data_dir is not None:
        return _read_folder(Path(os.path.expanduser(config.data_dir)), config.dataset)
    users = os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    try:
        prepared = _find_prepared(Path(users), config.dataset)
        if prepared is not None:
            return _read_prepared(prepared, config.dataset)
    except InputError as error:
        _logger.warning("%s (TFDS's own files are used instead)", error)
    return _read_listed(config.dataset)


def _read_folder(folder: Path, dataset: str) -> Dataset:
    """Read from the folder that the user named."""
    if not folder.is_dir():
        trouble = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"data_dir must be a prepared TFDS folder or hold IDX files, but {folder} {trouble}")
    prepared = _find_prepared(folder, dataset)
    if prepared is not None:
        return _read_prepared(prepared, dataset)
    files = idx.find_files(folder, dataset)
    if files is None:
        raise InputError(
            f"data_dir must have the four IDX files of {dataset} (train-images-idx3-ubyte.gz, ...) or be a prepared"
            f" TFDS folder with {dataset}/VERSION/dataset_info.json, but {folder} has neither"
        )
    return Dataset.of(dataset, *idx.read_files(files))  # not cached: 55 MB would save less than half a second


def _read_listed(dataset: str) -> Dataset:
    """Read the files whose SHA-256 TFDS lists: the package's own for MNIST, downloaded ones for the others."""
    spec = importlib.util.find_spec("tensorflow_datasets")  # finds the list without importing TFDS
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "url_checksums"
    listed = (folder / f"{dataset.partition('/')[0]}.txt").read_bytes()

    def make(scratch: Path, progress: Progress) -> tuple[idx.Arrays, int]:
        if dataset == "mnist":
            return _read_embedded(listed.decode())
        from jax_s6.data import tfds_prepare, tfds_read

        return tfds_read.read_prepared(tfds_prepare.prepare(dataset, scratch, progress), progress)

    # MNIST is cached, too: reading its compressed files takes four times as long.
    return cached(dataset, VERSIONS[dataset], hashlib.sha256(listed).hexdigest(), make)


def _read_embedded(listed: str) -> tuple[idx.Arrays, int]:
    """Read the package's own files of MNIST, having compared them with TFDS's list (URL, size, SHA-256, name)."""
    for _, _, expected, name in (line.split("\t") for line in listed.splitlines()):
        path = EMBEDDED / name
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; install jax_s6 again") from error
        if found != expected:
            raise InputError(f"{path} must have the SHA-256 {expected}, got {found}; install jax_s6 again")
    files = idx.find_files(EMBEDDED, "mnist")
    assert files is not None
    return idx.read_files(files)


def _read_prepared(folder: Path, dataset: str) -> Dataset:
    """Read a folder of one version that TFDS has prepared."""
    try:
        info = json.loads((folder / "dataset_info.json").read_bytes())
        name = "/".join(info[part] for part in ("name", "configName") if info.get(part))
        source = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with open(path, "rb") as file:
                source.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"cannot read the prepared TFDS folder {folder}: {error}; prepare it again") from error
    if name != dataset:
        raise InputError(f"dataset is {dataset}, but the prepared TFDS folder {folder} holds {name!r}")

    def make(scratch: Path, progress: Progress) -> tuple[idx.Arrays, int]:
        from jax_s6.data import tfds_read

        return tfds_read.read_prepared(folder, progress)

    return cached(dataset, str(info.get("version")), source.hexdigest(), make)


def _find_prepared(root: Path, dataset: str) -> Path | None:
    """Find a prepared version's folder: ``root`` itself, or the newest one in ``root/dataset`` or in ``root``."""
    try:
        if (root / "dataset_info.json").is_file():
            return root
        for parent in (root / dataset, root):
            versions = [path.parent for path in parent.glob("*.*.*/dataset_info.json")]
            versions = [path for path in versions if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", path.name)]
            if versions:
                return max(versions, key=lambda path: tuple(map(int, path.name.split("."))))
    except OSError as error:
        raise InputError(
            f"cannot look into {error.filename}: {error.strerror}; name another folder with --data-dir"
        ) from error
    return None
