"""Folders of their own for all tests of the data, and the data sets that several of them read."""

import http.server
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jax_s6 import data
from jax_s6.config import DataConfig
from tests.data.samples import Arrays, prepare_mnist, small


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps every test away from the user's cache, the user's TFDS folder and the network."""
    monkeypatch.setenv("JAX_S6_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no-tfds"))
    connect = socket.socket.connect

    def local_only(self: socket.socket, address) -> None:
        assert address[0] == "127.0.0.1", f"tried to reach {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def mnist_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder that ``mnist`` was written to."""
    return tmp_path_factory.mktemp("mnist") / "cache"


@pytest.fixture(scope="session")
def mnist(mnist_cache: Path) -> data.Dataset:
    """The embedded MNIST, as a first start reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_S6_CACHE", str(mnist_cache))
        patch.setenv("TFDS_DATA_DIR", str(mnist_cache / "no-tfds"))
        return data.load(DataConfig())


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arrays]:
    """A small prepared mnist, ``root/mnist/3.0.1``, and its arrays. Not to be changed."""
    arrays = small()
    with pytest.MonkeyPatch.context() as patch:
        return prepare_mnist(tmp_path_factory.mktemp("stock"), arrays, patch), arrays


@pytest.fixture
def version(stock: tuple[Path, Arrays], tmp_path: Path) -> Path:
    """A copy of the small prepared folder, which a test may change."""
    return Path(shutil.copytree(stock[0], tmp_path / "tfds" / "mnist" / "3.0.1"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/", folder
        listening.shutdown()
        thread.join()
