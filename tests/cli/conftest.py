"""Files and folders that cannot be used, each in its own way."""

import gzip

import numpy as np
import pytest

from jax_s6.config import RECIPES, to_json
from tests.conftest import write_idx
from tests.faults.runs import write_bars


def write_configs(folder):
    """Writes files that are no configuration."""
    valid = to_json(RECIPES["best"])
    contents = {
        "config": valid,
        "empty": "",
        "text": "learning rate: high",
        "list": "[1, 2]",
        "unknown": '{"optimizer": {"learning_rte": 1}}',
        "nested": "[" * 100_000,
        "out_of_range": '{"optimizer": {"learning_rate": -1}}',
        "wrong_type": '{"seed": "zero"}',
        "section": '{"optimizer": 3}',
    }
    for name, text in contents.items():
        (folder / name).write_text(text)
    (folder / "binary").write_bytes(b"\x80\xff\x00")


def write_data(folder, bars):
    """Writes folders of IDX files, each wrong in its own way."""

    def damage(name, part="train-images-idx3-ubyte"):
        (folder / name).mkdir()
        return write_bars(folder / name, bars) / part

    write_bars(folder / "data", bars)
    damage("three", "t10k-labels-idx1-ubyte").unlink()
    path = damage("swapped")
    path.write_bytes((folder / "data" / "train-labels-idx1-ubyte").read_bytes())
    path = damage("truncated")
    path.write_bytes(path.read_bytes()[:-1])
    path = damage("longer")
    path.write_bytes(path.read_bytes() + b"x")
    write_idx(damage("large_images"), np.zeros((500, 32, 32), np.uint8))
    write_idx(damage("many_classes", "train-labels-idx1-ubyte"), np.full(500, 199, np.uint8))
    write_idx(damage("unequal", "train-labels-idx1-ubyte"), np.zeros(499, np.uint8))
    write_idx(damage("no_items"), np.zeros((0, 28, 28), np.uint8))
    path = damage("liar")
    path.write_bytes(path.read_bytes()[:4] + b"\xff\xff\xff\xff" + path.read_bytes()[8:])
    path = damage("bad_gzip")
    path.write_bytes(gzip.compress(path.read_bytes())[:-20])
    path = damage("gzip_bomb")
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(50_000_000)))
    damage("not_idx").write_bytes(b"\x89PNG\r\n" * 100)


@pytest.fixture(scope="module")
def places(bars, tmp_path_factory):
    """Makes every path that a row names."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "data").mkdir()
    (folder / "folder").mkdir()
    write_configs(folder)
    write_data(folder, bars)
    for name, text in (("bad_tfds", "{"), ("other_tfds", '{"name": "kmnist"}')):
        (folder / name / "mnist" / "3.0.1").mkdir(parents=True)
        (folder / name / "mnist" / "3.0.1" / "dataset_info.json").write_text(text)
    (folder / "finished").mkdir()
    (folder / "finished" / "summary.json").write_text("{}")
    (folder / "unfinished" / "checkpoints").mkdir(parents=True)
    (folder / "done_backprop").mkdir()
    (folder / "done_backprop" / "backprop.csv").write_text("")
    found = {path.name: path for path in folder.iterdir()}
    return {**found, "missing": folder / "missing", "long_name": folder / ("x" * 300), "root": folder}
