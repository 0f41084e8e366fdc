"""Prepares the MNIST family with TensorFlow Datasets (TFDS), without TensorFlow.

TFDS's own builders name, download, check and write the data; only the steps for which they call TensorFlow are
replaced: unpacking, reading IDX files and compressing images.
"""

import contextlib
import queue
import threading
import zipfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import requests
import tensorflow_datasets as tfds
from rich.progress import Progress
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError
from tensorflow_datasets.image_classification import mnist

from jax_s6.data import idx
from jax_s6.data.tfds_read import first_line, quiet
from jax_s6.errors import InputError

_NETWORK_SECONDS = 15.0


class _Downloads:
    """TFDS's download manager, less the unpacking that it does with TensorFlow."""

    def __init__(self, manager: Any, config: str, folder: Path, progress: Progress):
        self._manager = manager
        self._config = config
        self._folder = folder
        self._progress = progress

    def download_and_extract(self, urls: str | dict[str, str]) -> Any:
        """Downloads; unpacks a zip archive as far as needed, and leaves gzip to the reader."""
        known = checksums.get_all_url_infos()
        wanted = list(urls.values()) if isinstance(urls, dict) else [urls]
        missing = [url for url in wanted if url not in known]
        if missing:
            raise InputError(f"TFDS lists no checksum for {', '.join(missing)}; install tensorflow-datasets again")
        with _watch(self._folder, self._progress, sum(known[url].size for url in wanted)):
            paths = self._manager.download(urls)
        if isinstance(urls, dict):
            return paths
        folder = f"{paths}-unpacked"
        with zipfile.ZipFile(paths) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if f"-{self._config}-" in name])
        return folder

    def extract(self, paths: dict[str, str]) -> dict[str, str]:
        """Leaves gzip to the reader."""
        return paths


class _NumpyBuilder(mnist.MNIST, skip_registration=True):
    """What TFDS's builders of the MNIST family do, with NumPy and Pillow in TensorFlow's place."""

    name = "mnist"
    download_folder: Path
    progress: Progress

    def _split_generators(self, dl_manager: Any) -> Any:
        config = getattr(self.builder_config, "name", "")
        downloads: Any = _Downloads(dl_manager, config, self.download_folder, self.progress)
        return super()._split_generators(downloads)

    def _generate_examples(
        self, num_examples: int, data_path: str, label_path: str
    ) -> Generator[tuple[int, dict[str, Any]], Any, None]:
        images, labels = idx.read_split(Path(data_path), Path(label_path))
        pairs = zip(images[..., 0], labels, strict=True)
        pairs = self.progress.track(pairs, total=num_examples, description=f"{self.name}: writing")
        for index, (image, label) in enumerate(pairs):
            yield index, {"image": PIL.Image.fromarray(image), "label": int(label)}


class _FashionMNIST(_NumpyBuilder, mnist.FashionMNIST, skip_registration=True):
    name = "fashion_mnist"


class _KMNIST(_NumpyBuilder, mnist.KMNIST, skip_registration=True):
    name = "kmnist"


class _EMNIST(_NumpyBuilder, mnist.EMNIST, skip_registration=True):
    name = "emnist"


_BUILDERS = {builder.name: builder for builder in (_NumpyBuilder, _FashionMNIST, _KMNIST, _EMNIST)}


def prepare(dataset: str, folder: Path, progress: Progress, *, files: Path | None = None) -> Path:
    """Prepares a data set as TFDS would, in its array_record format.

    Args:
        dataset: The TFDS name.
        folder: An empty folder of the caller's; downloads land there too.
        progress: Shows what happens.
        files: The folder that has the files which TFDS would download; None to download them.

    Returns:
        The folder that ``read_prepared`` reads.

    Raises:
        InputError: No network, a wrong checksum, a full disk.
    """
    name, _, config = dataset.partition("/")
    with quiet():
        builder = _BUILDERS[name](data_dir=folder, config=config or None, file_format="array_record")
        builder.progress, builder.download_folder = progress, folder / "downloads"
        if files is None:
            _require_network(dataset, builder.URL)
        # TFDS takes what lies in its manual_dir for downloaded, and compares the SHA-256 with its list all the same.
        settings = tfds.download.DownloadConfig(manual_dir=files)
        try:
            builder.download_and_prepare(download_dir=builder.download_folder, download_config=settings)
        except NonMatchingChecksumError as error:
            raise InputError(f"{first_line(error).rstrip(':')}; {_mend(dataset, files)}") from error
        except (requests.RequestException, DownloadError) as error:
            raise InputError(f"cannot download {dataset}: {first_line(error)}; {_mend(dataset, files)}") from error
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"cannot prepare {dataset} in {folder}: {first_line(error)}; mend it, or name another folder with"
                " JAX_S6_CACHE"
            ) from error
    return Path(builder.data_dir)


def _require_network(dataset: str, url: str) -> None:
    """Raises InputError unless the host of a URL answers within ``_NETWORK_SECONDS``.

    TFDS tries ten times over minutes, with no limit to any of them. The request has its own thread because a name
    server that does not answer cannot be timed out either.
    """
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            requests.head(url, timeout=_NETWORK_SECONDS)  # any status will do: TFDS judges the real request
            answers.put("")
        except requests.RequestException as error:
            answers.put(type(error).__name__)

    threading.Thread(target=ask, daemon=True).start()
    try:
        trouble = answers.get(timeout=_NETWORK_SECONDS)
    except queue.Empty:
        trouble = f"no answer in {_NETWORK_SECONDS:g} s"
    if trouble:
        raise InputError(f"cannot download {dataset}: no network to {url} ({trouble}); {_mend(dataset, None)}")


@contextlib.contextmanager
def _watch(folder: Path, progress: Progress, total: int) -> Iterator[None]:
    """Shows how many of ``total`` bytes have landed in a folder; TFDS's own bars would write over rich's."""
    task = progress.add_task("fetching", total=total)
    done = threading.Event()

    def poll() -> None:
        while not done.wait(0.5):
            with contextlib.suppress(OSError):  # TFDS renames files while they are counted
                landed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                progress.update(task, completed=landed)

    threading.Thread(target=poll, daemon=True).start()
    try:
        yield
    finally:
        done.set()
    progress.update(task, completed=total)


def _mend(dataset: str, files: Path | None) -> str:
    """Says what to do about files that cannot be had."""
    if files is not None:
        return f"install jax_s6 again, {files} belongs to it"
    return f"name a folder that has the IDX files of {dataset}, or a prepared TFDS folder, with --data-dir"
