"""IDX files in a folder that the user names."""

from pathlib import Path

import pytest

from jax_s6 import data
from jax_s6.config import DataConfig
from jax_s6.errors import InputError
from tests.data.samples import NAMES, assert_same, small, write_idx


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
def test_an_unusable_folder_is_named(tmp_path: Path, make, message):
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
