"""The embedded MNIST: the official arrays in the official order, read without TFDS; and the split into holdout."""

import gzip
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorflow_datasets.image_classification import mnist as tfds_mnist

from jax_s6 import data
from jax_s6.config import DataConfig
from jax_s6.data import sources
from jax_s6.errors import InputError
from tests.data.samples import NAMES, assert_same, small

# The SHA-256 of MNIST's four arrays: of the IDX files' contents, with the labels as int32.
MNIST_CHECKSUM = "bab833be44432887"


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


@pytest.mark.parametrize("split", ["train", "test"])
def test_tfds_own_builder_gives_the_same_order(mnist: data.Dataset, split, monkeypatch):
    """Run TFDS's own generator of examples, whose keys are the order, with gzip in place of TensorFlow's files."""
    monkeypatch.setattr(tfds_mnist, "tf", SimpleNamespace(io=SimpleNamespace(gfile=SimpleNamespace(GFile=gzip.open))))
    images, labels = getattr(mnist, f"{split}_images"), getattr(mnist, f"{split}_labels")
    paths = [data.EMBEDDED / NAMES[f"{split}_{part}"] for part in ("images", "labels")]
    keys, examples = zip(*tfds_mnist.MNIST._generate_examples(None, len(images), *paths), strict=True)
    assert keys == tuple(range(len(images)))
    np.testing.assert_array_equal(np.stack([example["image"] for example in examples]), images)
    np.testing.assert_array_equal([example["label"] for example in examples], labels)


def python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("start", ["first", "second"])
def test_no_start_needs_tfds(start, mnist: data.Dataset, mnist_cache: Path, tmp_path: Path):
    cache = mnist_cache if start == "second" else tmp_path / "cache"
    script = """
        import sys
        from jax_s6 import data
        from jax_s6.config import DataConfig
        print(data.load(DataConfig()).checksum)
        assert not {"tensorflow_datasets", "tensorflow", "array_record", "PIL"} & set(sys.modules)
    """
    before = [path.stat().st_mtime_ns for path in mnist_cache.iterdir()]
    done = python(script, JAX_S6_CACHE=str(cache))
    assert done.stdout.strip() == mnist.checksum and done.stderr == ""
    assert [path.name[:12] for path in cache.iterdir()] == ["mnist-3.0.1-"], "one entry, and nothing left of its making"
    assert [path.stat().st_mtime_ns for path in mnist_cache.iterdir()] == before


@pytest.mark.parametrize("name", NAMES.values())
def test_a_damaged_embedded_file_is_named(name, tmp_path: Path, monkeypatch):
    folder = shutil.copytree(data.EMBEDDED, tmp_path / "embedded")
    content = bytearray((folder / name).read_bytes())
    content[4] ^= 1  # the time stamp in gzip's header, which no decompressor checks
    (folder / name).write_bytes(content)
    monkeypatch.setattr(sources, "EMBEDDED", folder)
    with pytest.raises(InputError, match=f"{folder}/{name} must have the SHA-256 .*, got .*; install jax_s6 again"):
        data.load(DataConfig())
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"cannot read {folder}/{name}: No such file .*; install jax_s6 again"):
        data.load(DataConfig())


def test_holdout_is_the_last_training_images(mnist: data.Dataset):
    train_images, train_labels, images, labels = data.split_holdout(mnist, 5000)
    assert train_images.shape == (55_000, 28, 28, 1) and train_labels.shape == (55_000,)
    np.testing.assert_array_equal(images, mnist.train_images[55_000:])
    np.testing.assert_array_equal(labels, mnist.train_labels[55_000:])
    np.testing.assert_array_equal(train_images, mnist.train_images[:55_000])


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
