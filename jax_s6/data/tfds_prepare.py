"""Download and prepare data sets of the MNIST family with TensorFlow Datasets (TFDS), without TensorFlow.

TFDS's own builders name, download, check and write the data. Only the steps for which they call TensorFlow are
replaced: unpacking, reading IDX files and compressing images.
"""

import contextlib
import queue
import threading
import zipfile
from collections.abc import Generator, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import PIL.Image
import requests
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
    """TFDS's download manager, without the unpacking for which it needs TensorFlow."""

    def __init__(self, manager: Any, config: str, folder: Path, progress: Progress):
        self._manager = manager
        self._config = config
        self._folder = folder
        self._progress = progress

    def download_and_extract(self, urls: str | dict[str, str]) -> Any:
        """Download files; unpack from a zip archive the files of this data set, but leave gzip to the reader."""
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
        """Leave gzip to the reader."""
        return paths


class _NumpyBuilder(mnist.MNIST, skip_registration=True):
    """TFDS's builder of the MNIST family, with NumPy and Pillow in place of TensorFlow."""

    name = "mnist"
    download_folder: Path
    progress: Progress

    def _split_generators(self, dl_manager: Any) -> Any:
        config = getattr(self.builder_config, "name", "")
        downloads: Any = _Downloads(dl_manager, config, self.download_folder, self.progress)
        return super()._split_generators(downloads)

    def _generate_examples(
        self, num_examples: int, data_path: str | PathLike[str], label_path: str | PathLike[str]
    ) -> Generator[tuple[int, dict[str, Any]], Any, None]:
        images, labels = idx.read_split(Path(data_path), Path(label_path))
        pairs = zip(images[..., 0], labels, strict=True)
        pairs = self.progress.track(pairs, total=num_examples, description=f"{self.name}: writing")
        for index, (image, label) in enumerate(pairs):
            yield index, {"image": PIL.Image.fromarray(image), "label": int(label)}


_BUILDERS: dict[str, Any] = {
    parent.name: type(parent.__name__, (_NumpyBuilder, parent), {}, skip_registration=True)
    for parent in (mnist.FashionMNIST, mnist.KMNIST, mnist.EMNIST)
}


def prepare(dataset: str, folder: Path, progress: Progress) -> Path:
    """Download a data set and prepare it as TFDS would, in its array_record format.

    Args:
        dataset: The TFDS name; not ``mnist``, which is in the package.
        folder: An empty folder of the caller's; downloads are written there, too.
        progress: The progress bar to report to.

    Returns:
        The folder that ``read_prepared`` reads.

    Raises:
        InputError: There is no network, a checksum is wrong, or the disk is full.
    """
    name, _, config = dataset.partition("/")
    with quiet():
        builder = _BUILDERS[name](data_dir=folder, config=config or None, file_format="array_record")
        builder.progress, builder.download_folder = progress, folder / "downloads"
        mend = f"name a folder that has the IDX files of {dataset}, or a prepared TFDS folder, with --data-dir"
        trouble = _no_network(builder.URL)
        if trouble:
            raise InputError(f"cannot download {dataset}: no network to {builder.URL} ({trouble}); {mend}")
        try:
            builder.download_and_prepare(download_dir=builder.download_folder)
        except NonMatchingChecksumError as error:
            raise InputError(f"{first_line(error).rstrip(':')}; {mend}") from error
        except (requests.RequestException, DownloadError) as error:
            raise InputError(f"cannot download {dataset}: {first_line(error)}; {mend}") from error
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"cannot prepare {dataset} in {folder}: {first_line(error)}; make that possible, or name another"
                " folder with JAX_S6_CACHE"
            ) from error
    return Path(builder.data_dir)


def _no_network(url: str) -> str:
    """Return why the host of a URL does not answer within ``_NETWORK_SECONDS``; an empty text if it does.

    TFDS itself would try ten times over minutes, without a time limit. The request has its own thread because waiting
    for a name server has no time limit either.
    """
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            requests.head(url, timeout=_NETWORK_SECONDS)  # any status will do: TFDS checks that of its own request
            answers.put("")
        except requests.RequestException as error:
            answers.put(type(error).__name__)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=_NETWORK_SECONDS)
    except queue.Empty:
        return f"no answer in {_NETWORK_SECONDS:g} s"


@contextlib.contextmanager
def _watch(folder: Path, progress: Progress, total: int) -> Iterator[None]:
    """Show how many of ``total`` bytes are in a folder; TFDS's own progress bars would overwrite rich's."""
    task = progress.add_task("downloading", total=total)
    done = threading.Event()

    def poll() -> None:
        while not done.wait(0.5):
            with contextlib.suppress(OSError):  # TFDS renames files while they are counted
                received = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                progress.update(task, completed=received)

    threading.Thread(target=poll, daemon=True).start()
    try:
        yield
    finally:
        done.set()
    progress.update(task, completed=total)
