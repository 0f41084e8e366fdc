"""The data sets: exact arrays in the official order from every source, a cache that is never wrong, clear errors."""

import gzip
import hashlib
import http.server
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.units import Size

from jax_s6.config import DataConfig
from jax_s6.data import cache as data_cache
from jax_s6.data import dataset as data
from jax_s6.data import idx, tfds_prepare, tfds_read
from jax_s6.errors import InputError

# The SHA-256 of MNIST's four arrays: of the IDX files' contents, with the labels as int32.
MNIST_CHECKSUM = "bab833be44432887"
NAMES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
Arrays = dict[str, np.ndarray]


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


def small(train: int = 40, test: int = 20, seed: int = 0) -> Arrays:
    """A data set in which no two images are alike, so that their order shows."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for split, count in (("train", train), ("test", test)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 10, count).astype(np.int32)
    return arrays


def encode(array: np.ndarray) -> bytes:
    array = array.astype(np.uint8).reshape(array.shape[:3])
    return gzip.compress(struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes(), 1)


def write_idx(folder: Path, arrays: Arrays, names: dict[str, str] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for role, array in arrays.items():
        (folder / names[role]).write_bytes(encode(array))
    return folder


def assert_same(dataset: data.Dataset, arrays: Arrays) -> None:
    for role, array in arrays.items():
        actual = getattr(dataset, role)
        assert actual.dtype == array.dtype and actual.shape == array.shape, role
        np.testing.assert_array_equal(actual, array, err_msg=role)
    assert dataset.checksum == hashlib.sha256(b"".join(arrays[role].tobytes() for role in idx.ROLES)).hexdigest()


def register(monkeypatch: pytest.MonkeyPatch, urls: dict[str, bytes]) -> None:
    """Puts what some URLs give on TFDS's list of checksums."""
    infos = {
        url: checksums.UrlInfo(
            size=Size(len(body)), checksum=hashlib.sha256(body).hexdigest(), filename=url.split("/")[-1]
        )
        for url, body in urls.items()
    }
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: dict(infos))


def prepared(folder: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch, dataset: str = "mnist") -> Path:
    """Has TFDS prepare a data set in array_record; returns the version's folder."""
    files = write_idx(folder / "files", arrays)
    builder = tfds_prepare._BUILDERS[dataset]
    with monkeypatch.context() as patch:
        register(patch, {builder.URL + name: (files / name).read_bytes() for name in NAMES.values()})
        return tfds_prepare.prepare(dataset, folder, data_cache._progress(), files=files)


def as_tfrecord(folder: Path) -> None:
    """Rewrites a prepared folder in the format that TFDS writes by default, with TensorFlow."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    for split in ("train", "test"):
        source = builder.as_data_source(split).data_source
        with open(folder / f"mnist-{split}.tfrecord-00000-of-00001", "wb") as file:
            for record in source.__getitems__(range(len(source))):
                file.write(struct.pack("<Q", len(record)) + bytes(4) + record + bytes(4))
    change_format(folder, "tfrecord")


def as_parquet(folder: Path, keep: slice = slice(None)) -> None:
    import pyarrow
    import pyarrow.parquet
    import tensorflow_datasets as tfds

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


# The embedded MNIST, prepared once in full.


@pytest.fixture(scope="module")
def mnist_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mnist") / "cache"


@pytest.fixture
def mnist(mnist_cache: Path, monkeypatch: pytest.MonkeyPatch) -> data.Dataset:
    monkeypatch.setenv("JAX_S6_CACHE", str(mnist_cache))
    return data.load(DataConfig())


def test_mnist_is_the_official_files_in_their_order(mnist: data.Dataset):
    def content(role: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((data.EMBEDDED / NAMES[role]).read_bytes()), np.uint8, offset=offset)

    arrays = {
        "train_images": content("train_images", 16).reshape(60_000, 28, 28, 1),
        "train_labels": content("train_labels", 8).astype(np.int32),
        "test_images": content("test_images", 16).reshape(10_000, 28, 28, 1),
        "test_labels": content("test_labels", 8).astype(np.int32),
    }
    assert_same(mnist, arrays)
    assert mnist.checksum.startswith(MNIST_CHECKSUM)
    assert (mnist.name, mnist.num_classes) == ("mnist", 10)
    # Facts about MNIST that no file here states: its mean and deviation, its first labels, its counts of each digit.
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in np.split(mnist.train_images, 60))
    mean, mean_square = (np.average((np.arange(256) / 255) ** power, weights=counts) for power in (1, 2))
    assert round(mean, 4) == 0.1307 and round((mean_square - mean**2) ** 0.5, 4) == 0.3081
    assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(mnist.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_second_start_needs_no_tfds(mnist: data.Dataset, mnist_cache: Path):
    entries = sorted(mnist_cache.iterdir())
    assert [path.name[:12] for path in entries] == ["mnist-3.0.1-"], "one entry, and nothing left of its making"
    script = """
        import sys
        from jax_s6 import data
        from jax_s6.config import DataConfig
        print(data.load(DataConfig()).checksum)
        assert "tensorflow_datasets" not in sys.modules and "tensorflow" not in sys.modules
    """
    before = entries[0].stat().st_mtime_ns
    done = python(script, JAX_S6_CACHE=str(mnist_cache))
    assert done.stdout.strip() == mnist.checksum and done.stderr == ""
    assert entries[0].stat().st_mtime_ns == before


def test_holdout_is_the_last_training_images(mnist: data.Dataset):
    train_images, train_labels, images, labels = data.split_holdout(mnist, 5000)
    assert train_images.shape == (55_000, 28, 28, 1) and train_labels.shape == (55_000,)
    np.testing.assert_array_equal(images, mnist.train_images[55_000:])
    np.testing.assert_array_equal(labels, mnist.train_labels[55_000:])
    np.testing.assert_array_equal(train_images, mnist.train_images[:55_000])


def python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("holdout", [0, 39])
def test_holdout_keeps_every_image(holdout):
    arrays = small()
    dataset = data.Dataset(name="mnist", **arrays, num_classes=10, checksum="")
    train_images, train_labels, images, labels = data.split_holdout(dataset, holdout)
    assert len(images) == len(labels) == holdout and len(train_images) == 40 - holdout
    np.testing.assert_array_equal(np.concatenate([train_images, images]), arrays["train_images"])
    np.testing.assert_array_equal(np.concatenate([train_labels, labels]), arrays["train_labels"])


@pytest.mark.parametrize("holdout", [-1, 40, 60_000])
def test_holdout_leaves_something_to_train_on(holdout):
    dataset = data.Dataset(name="mnist", **small(), num_classes=10, checksum="")
    with pytest.raises(InputError, match=f"holdout must be >= 0 and < 40, .* got {holdout}"):
        data.split_holdout(dataset, holdout)


# TFDS's own files: embedded or downloaded.


def test_versions_are_tfds_own():
    for dataset, version in data.VERSIONS.items():
        name, _, config = dataset.partition("/")
        builder: Any = tfds_prepare._BUILDERS[name](data_dir="unused", config=config or None)
        assert str(builder.version) == version and builder.info.features["label"].num_classes == data._NUM_CLASSES


@pytest.mark.parametrize("name", NAMES.values())
def test_a_damaged_embedded_file_is_named(name, tmp_path: Path, monkeypatch):
    folder = shutil.copytree(data.EMBEDDED, tmp_path / "embedded")
    content = bytearray((folder / name).read_bytes())
    content[4] ^= 1  # the time stamp in gzip's header: no decompressor minds
    (folder / name).write_bytes(content)
    monkeypatch.setattr(data, "EMBEDDED", folder)
    with pytest.raises(InputError, match=f"{folder}/{name}, has wrong checksum; install jax_s6 again"):
        data.load(DataConfig())
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"lacks {name}"):
        data.load(DataConfig())


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


def test_downloads_what_tfds_names(server, tmp_path: Path, monkeypatch, capfd):
    url, folder = server
    arrays = small()
    write_idx(folder, arrays)
    register(monkeypatch, {url + name: (folder / name).read_bytes() for name in NAMES.values()})
    monkeypatch.setattr(tfds_prepare._FashionMNIST, "URL", url)
    dataset = data.load(DataConfig(dataset="fashion_mnist"))
    assert_same(dataset, arrays)
    assert (dataset.name, dataset.num_classes) == ("fashion_mnist", 10)
    assert capfd.readouterr() == ("", ""), "TFDS prints to both streams"
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"], "downloads are left behind"
    shutil.rmtree(folder)
    assert_same(data.load(DataConfig(dataset="fashion_mnist")), arrays)


def test_a_wrong_or_missing_download_is_one_sentence(server, monkeypatch):
    url, folder = server
    write_idx(folder, small())
    register(monkeypatch, {url + name: (folder / name).read_bytes() for name in NAMES.values()})
    monkeypatch.setattr(tfds_prepare._KMNIST, "URL", url)
    (folder / NAMES["test_labels"]).write_bytes(b"not what TFDS knows")
    with pytest.raises(InputError, match=r"127.*t10k-labels.*has wrong checksum; .* of kmnist.* --data-dir$"):
        data.load(DataConfig(dataset="kmnist"))
    (folder / NAMES["test_labels"]).unlink()
    with pytest.raises(InputError, match="cannot download kmnist: .*404.* --data-dir$"):
        data.load(DataConfig(dataset="kmnist"))


def test_emnist_digits_out_of_the_archive_as_they_are(server, monkeypatch):
    url, folder = server
    arrays = small()
    names = {role: "gzip/emnist-{}-" + name.replace("t10k", "test") for role, name in NAMES.items()}
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for part, content in (("letters", small(seed=1)), ("digits", arrays), ("mnist", small(seed=2))):
            for role, array in content.items():
                archive.writestr(names[role].format(part), encode(array))
    register(monkeypatch, {url + "gzip.zip": (folder / "gzip.zip").read_bytes()})
    monkeypatch.setattr(tfds_prepare._EMNIST, "URL", url + "gzip.zip")
    assert_same(data.load(DataConfig(dataset="emnist/digits")), arrays)


def test_nothing_is_taken_without_a_checksum(server, monkeypatch):
    url, folder = server
    write_idx(folder, small())
    register(monkeypatch, {url + name: b"" for name in list(NAMES.values())[:3]})
    monkeypatch.setattr(tfds_prepare._KMNIST, "URL", url)
    with pytest.raises(InputError, match="TFDS lists no checksum"):
        data.load(DataConfig(dataset="kmnist"))


@pytest.mark.parametrize("dataset", ["fashion_mnist", "kmnist", "emnist/digits"])
def test_no_network_is_said_at_once(dataset, monkeypatch):
    builder = tfds_prepare._BUILDERS[dataset.partition("/")[0]]
    monkeypatch.setattr(builder, "URL", "http://127.0.0.1:9/")
    started = time.monotonic()
    with pytest.raises(InputError, match=f"cannot download {dataset}: no network to http://127.* --data-dir$"):
        data.load(DataConfig(dataset=dataset))
    assert time.monotonic() - started < 30, "TFDS's own ten tries take minutes"


def test_a_network_that_swallows_everything_is_noticed(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: release.wait(60))
    monkeypatch.setattr(tfds_prepare, "_NETWORK_SECONDS", 0.1)
    with pytest.raises(InputError, match=r"no answer in 0.1 s"):
        data.load(DataConfig(dataset="kmnist"))
    release.set()


# Prepared TFDS folders.


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arrays]:
    """A small prepared mnist: ``root/mnist/3.0.1``."""
    arrays = small()
    root = tmp_path_factory.mktemp("stock")
    with pytest.MonkeyPatch.context() as patch:
        return prepared(root, arrays, patch), arrays


@pytest.fixture
def version(stock: tuple[Path, Arrays], tmp_path: Path) -> Path:
    """A copy of the small prepared folder, to do anything to."""
    return Path(shutil.copytree(stock[0], tmp_path / "tfds" / "mnist" / "3.0.1"))


def test_prepared_records_are_shuffled_and_come_back_in_order(version: Path, stock):
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(version)
    raw = [example["label"] for example in builder.as_data_source("train")]
    assert raw != stock[1]["train_labels"].tolist(), "TFDS no longer shuffles: nothing would be tested here"
    for folder in (version, version.parent, version.parent.parent):
        assert_same(data.load(DataConfig(data_dir=folder)), stock[1])


@pytest.mark.parametrize("convert", [as_tfrecord, as_parquet])
def test_other_formats_need_no_tensorflow(version: Path, stock, convert):
    convert(version)
    assert_same(data.load(DataConfig(data_dir=version)), stock[1])
    assert "tensorflow" not in sys.modules


def test_the_users_tfds_folder_goes_first(version: Path, stock, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(version.parent.parent))
    assert_same(data.load(DataConfig()), stock[1])
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(version.parents[2]))
    (version.parents[2] / "tfds").rename(version.parents[2] / "tensorflow_datasets")
    assert_same(data.load(DataConfig()), stock[1])


def test_the_newest_version_is_taken(version: Path, monkeypatch):
    newer = small(seed=5)
    folder = prepared(version.parents[2] / "other", newer, monkeypatch)
    shutil.move(folder, version.parent / "3.0.10")
    version.rename(version.parent / "3.0.9")
    assert_same(data.load(DataConfig(data_dir=version.parent.parent)), newer)


def test_an_unusable_tfds_folder_of_the_users_is_a_warning_and_no_end(
    mnist, mnist_cache, version: Path, monkeypatch, warnings_said
):
    edit_json(version / "dataset_info.json", fileFormat="riegeli")
    monkeypatch.setenv("TFDS_DATA_DIR", str(version.parent.parent))
    assert data.load(DataConfig()).checksum == mnist.checksum
    [message] = warnings_said()
    assert "riegeli, needs TensorFlow" in message and "instead" in message
    with pytest.raises(InputError, match="riegeli, needs TensorFlow; .*--data-dir"):
        data.load(DataConfig(data_dir=version))


def damage_record_files(version: Path) -> None:
    path = version / "mnist-test.array_record-00000-of-00001"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_classes(version: Path, num_classes: int) -> None:
    text = (version / "features.json").read_text()
    (version / "features.json").write_text(text.replace('"numClasses": "10"', f'"numClasses": "{num_classes}"'))


def lose_examples(version: Path) -> None:
    as_parquet(version, slice(0, 10))


def promise_too_much(version: Path) -> None:
    text = (version / "dataset_info.json").read_text()
    (version / "dataset_info.json").write_text(text.replace('"40"', f'"{10**15}"'))


def truncate_tfrecord(version: Path) -> None:
    as_tfrecord(version)
    path = version / "mnist-train.tfrecord-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_record_files, "cannot read the prepared TFDS folder"),
        (lambda version: change_classes(version, 5), "has a label outside its classes"),
        (lambda version: change_classes(version, 26), "has 26 classes, .* do not fit the network's 16 outputs"),
        (lose_examples, "train holds 10 of its 40 examples"),
        (promise_too_much, "allowed are 1 to 1000000"),
        (truncate_tfrecord, "ends in the middle of a record"),
        (lambda version: (version / "features.json").unlink(), "cannot read the prepared TFDS folder"),
        (lambda version: (version / "features.json").write_text("{}"), "cannot read the prepared TFDS folder"),
        (lambda version: (version / "dataset_info.json").write_text("{"), "cannot read the prepared TFDS folder"),
        (lambda version: (version / "dataset_info.json").write_text("[" * 100_000), "cannot read the prepared"),
        (lambda version: (version / "dataset_info.json").write_text("[]"), "cannot read the prepared TFDS folder"),
        (lambda version: edit_json(version / "dataset_info.json", name="kmnist"), "is mnist, but .* holds 'kmnist'"),
        (lambda version: edit_json(version / "dataset_info.json", splits=[]), "cannot read the prepared TFDS folder"),
    ],
)
def test_a_damaged_prepared_folder_is_one_sentence(version: Path, damage, message):
    damage(version)
    with pytest.raises(InputError, match=message) as caught:
        data.load(DataConfig(data_dir=version))
    assert str(version) in str(caught.value) and "\n" not in str(caught.value)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), value=st.integers(0, 255), tfrecord=st.booleans())
def test_a_changed_byte_never_ends_in_a_traceback(stock, tmp_path: Path, at, value, tfrecord):
    version = tmp_path / "changed"
    shutil.rmtree(version, ignore_errors=True)
    shutil.copytree(stock[0], version)
    if tfrecord:
        as_tfrecord(version)
    path = next(version.glob("mnist-train.*"))
    content = bytearray(path.read_bytes())
    content[min(int(at * len(content)), len(content) - 1)] = value
    path.write_bytes(content)
    try:
        tfds_read.read_prepared(version, data_cache._progress())
    except InputError as error:
        assert str(version) in str(error) and "\n" not in str(error)


# IDX files in the user's own folder.


def test_the_layout_of_debians_package(tmp_path: Path):
    arrays = small()
    folder = write_idx(tmp_path / "usr/share/datasets/fashion-mnist", arrays)
    dataset = data.load(DataConfig(dataset="fashion_mnist", data_dir=folder))
    assert_same(dataset, arrays)
    assert (dataset.name, dataset.num_classes) == ("fashion_mnist", 10)
    assert not (tmp_path / "cache").exists()


def test_more_classes_than_the_set_has_are_counted(tmp_path: Path):
    arrays = small()
    arrays["test_labels"][3] = 12
    assert data.load(DataConfig(data_dir=write_idx(tmp_path / "mine", arrays))).num_classes == 13


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "is not a folder"),
        (lambda path: path.mkdir(), "must have the four IDX files of mnist .* has neither"),
        (lambda path: write_idx(path, small()) / NAMES["test_images"], None),
        (lambda path: (write_idx(path, small()) / NAMES["test_images"]).unlink(), "lacks t10k-images-idx3-ubyte.gz"),
        (
            lambda path: write_idx(path, small(), {**NAMES, "train_images": "train-labels-idx1-ubyte"}),
            "lacks train-images",
        ),
    ],
)
def test_a_folder_that_does_not_do_is_named(tmp_path: Path, make, message):
    make(tmp_path / "mine")
    if message is None:
        data.load(DataConfig(data_dir=tmp_path / "mine"))
        return
    with pytest.raises(InputError, match=message) as caught:
        data.load(DataConfig(data_dir=tmp_path / "mine"))
    assert str(tmp_path / "mine") in str(caught.value) and "\n" not in str(caught.value)


def test_a_home_that_does_not_exist_is_no_traceback(monkeypatch):
    with pytest.raises(InputError, match="~nobody-by-this-name/mnist does not exist"):
        data.load(DataConfig(data_dir=Path("~nobody-by-this-name/mnist")))


# The cache, from outside; test_data_cache.py has the rest.


def test_two_processes_prepare_at_the_same_moment(version: Path, tmp_path: Path):
    script = """
        import sys, time
        from pathlib import Path
        from jax_s6 import data, tfds_read
        from jax_s6.config import DataConfig
        here, other, folder = map(Path, sys.argv[1:])
        read = tfds_read.read_prepared
        def together(*args):
            here.touch()
            while not other.exists():
                time.sleep(0.01)
            return read(*args)
        tfds_read.read_prepared = together
        print(data.load(DataConfig(data_dir=folder)).checksum)
    """
    marks = [str(tmp_path / "one"), str(tmp_path / "two")]
    command = [sys.executable, "-c", textwrap.dedent(script)]
    started = [
        subprocess.Popen([*command, *order, str(version)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for order in (marks, marks[::-1])
    ]
    results = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0], results
    assert results[0] == results[1] and results[0][1] == ""
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_unwritable_cache_is_one_line_and_no_end(version: Path, stock, tmp_path: Path, monkeypatch, warnings_said):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_S6_CACHE", str(tmp_path / "file" / "cache"))
    assert_same(data.load(DataConfig(data_dir=version)), stock[1])
    [message] = warnings_said()
    assert str(tmp_path / "file") in message and message.endswith("with JAX_S6_CACHE")


def test_no_folder_to_work_in_is_an_error(version: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_S6_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="nor to a temporary one; .* JAX_S6_CACHE"):
        data.load(DataConfig(data_dir=version))


def test_without_a_home_no_folder_named_tilde_appears(version: Path, stock, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.delenv("JAX_S6_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert_same(data.load(DataConfig(data_dir=version)), stock[1])
    assert "there is no home folder" in caplog.text and not (tmp_path / "~").exists()


def test_progress_is_for_terminals(version: Path, tmp_path: Path, monkeypatch, capfd):
    data.load(DataConfig(data_dir=version))
    assert capfd.readouterr() == ("", "")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    data.load(DataConfig(data_dir=version))
    out, err = capfd.readouterr()
    assert out == "" and "mnist: reading" in err
