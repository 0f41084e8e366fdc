"""Data sets that TFDS downloads: from the URLs and with the checksums that it lists, or one clear sentence."""

import shutil
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import requests
import tensorflow_datasets as tfds

from jax_s6 import data
from jax_s6.config import DataConfig
from jax_s6.data import idx, sources, tfds_prepare
from jax_s6.errors import InputError
from tests.data.samples import NAMES, assert_same, encode, register, small, write_idx


@pytest.fixture
def set_url(monkeypatch):
    """Gives a function that changes where a data set is downloaded from."""
    return lambda name, url: monkeypatch.setattr(tfds_prepare._BUILDERS[name], "URL", url)


def test_versions_are_tfds_own():
    for dataset, version in sources.VERSIONS.items():
        name, _, config = dataset.partition("/")
        builder: Any = tfds.builder_cls(name)(data_dir="unused", config=config or None)
        assert str(builder.version) == version and builder.info.features["label"].num_classes == idx.NUM_CLASSES


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "emnist"])
def test_builders_are_tfds_own_apart_from_tensorflow(name):
    builder, own = tfds_prepare._BUILDERS[name], tfds.builder_cls(name)
    assert issubclass(builder, own) and builder.name == own.name == name and builder.URL == own.URL


def test_downloads_what_tfds_names(server, set_url, tmp_path: Path, monkeypatch, capfd):
    url, folder = server
    arrays = small()
    write_idx(folder, arrays)
    register(monkeypatch, {url + name: (folder / name).read_bytes() for name in NAMES.values()})
    set_url("fashion_mnist", url)
    dataset = data.load(DataConfig(dataset="fashion_mnist"))
    assert_same(dataset, arrays)
    assert (dataset.name, dataset.num_classes) == ("fashion_mnist", 10)
    assert capfd.readouterr() == ("", ""), "TFDS prints to both streams"
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"], "downloads are left behind"
    shutil.rmtree(folder)
    assert_same(data.load(DataConfig(dataset="fashion_mnist")), arrays)


def test_a_wrong_or_missing_download_is_one_sentence(server, set_url, monkeypatch):
    url, folder = server
    write_idx(folder, small())
    register(monkeypatch, {url + name: (folder / name).read_bytes() for name in NAMES.values()})
    set_url("kmnist", url)
    (folder / NAMES["test_labels"]).write_bytes(b"not what TFDS knows")
    with pytest.raises(InputError, match=r"127.*t10k-labels.*has wrong checksum; .* of kmnist.* --data-dir$"):
        data.load(DataConfig(dataset="kmnist"))
    (folder / NAMES["test_labels"]).unlink()
    with pytest.raises(InputError, match="cannot download kmnist: .*404.* --data-dir$"):
        data.load(DataConfig(dataset="kmnist"))


def test_emnist_digits_are_taken_from_the_archive_unchanged(server, set_url, monkeypatch):
    url, folder = server
    arrays = small()
    names = {role: "gzip/emnist-{}-" + name.replace("t10k", "test") for role, name in NAMES.items()}
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for part, content in (("letters", small(seed=1)), ("digits", arrays), ("mnist", small(seed=2))):
            for role, array in content.items():
                archive.writestr(names[role].format(part), encode(array))
    register(monkeypatch, {url + "gzip.zip": (folder / "gzip.zip").read_bytes()})
    set_url("emnist", url + "gzip.zip")
    assert_same(data.load(DataConfig(dataset="emnist/digits")), arrays)


def test_nothing_is_used_without_a_checksum(server, set_url, monkeypatch):
    url, folder = server
    write_idx(folder, small())
    register(monkeypatch, {url + name: b"" for name in list(NAMES.values())[:3]})
    set_url("kmnist", url)
    with pytest.raises(InputError, match="TFDS lists no checksum"):
        data.load(DataConfig(dataset="kmnist"))


@pytest.mark.parametrize("dataset", ["fashion_mnist", "kmnist", "emnist/digits"])
def test_a_missing_network_is_reported_at_once(dataset, set_url):
    set_url(dataset.partition("/")[0], "http://127.0.0.1:9/")
    started = time.monotonic()
    with pytest.raises(InputError, match=f"cannot download {dataset}: no network to http://127.* --data-dir$"):
        data.load(DataConfig(dataset=dataset))
    assert time.monotonic() - started < 30, "TFDS's own ten tries take minutes"


def test_a_network_that_never_answers_is_noticed(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: release.wait(60))
    monkeypatch.setattr(tfds_prepare, "_NETWORK_SECONDS", 0.1)
    with pytest.raises(InputError, match=r"no answer in 0.1 s"):
        data.load(DataConfig(dataset="kmnist"))
    release.set()
