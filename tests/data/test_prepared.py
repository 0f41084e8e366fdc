"""Prepared TFDS folders: the official order from every format, and one clear sentence for a damaged one."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from jax_s6 import data
from jax_s6.config import DataConfig
from jax_s6.data import tfds_read
from jax_s6.errors import InputError
from tests.data.samples import as_parquet, as_tfrecord, assert_same, edit_json, prepare_mnist, small


def test_prepared_records_are_shuffled_and_come_back_in_order(version: Path, stock):
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(version)
    raw = [example["label"] for example in builder.as_data_source("train")]
    assert raw != stock[1]["train_labels"].tolist(), "TFDS no longer shuffles, so this test checks nothing"
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
    folder = prepare_mnist(version.parents[2] / "other", newer, monkeypatch)
    shutil.move(folder, version.parent / "3.0.10")
    version.rename(version.parent / "3.0.9")
    assert_same(data.load(DataConfig(data_dir=version.parent.parent)), newer)


def test_an_unusable_tfds_folder_of_the_users_is_only_a_warning(
    mnist, mnist_cache, version: Path, monkeypatch, warnings_said
):
    monkeypatch.setenv("JAX_S6_CACHE", str(mnist_cache))
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
        tfds_read.read_prepared(version, Progress(disable=True))
    except InputError as error:
        assert str(version) in str(error) and "\n" not in str(error)
