"""What is read from a checkpoint is what was written or is refused; after damage the one before it is used."""

import json
import shutil

import numpy as np
import pytest
import safetensors

from jax_s6.errors import InputError
from jax_s6.runs import checkpoints
from jax_s6.runs.checkpoints import Store, flatten, unflatten
from tests.faults.conftest import IDENTITY, assert_is_epoch, make_arrays


def test_newest_is_read_bit_for_bit(folder, caplog):
    assert_is_epoch(Store(folder, IDENTITY).load(), 2)
    assert not caplog.records
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["1.safetensors", "2.safetensors"], "nothing incomplete is left"


def test_a_flipped_bit_is_noticed(newest):
    content = newest.read_bytes()
    for position in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        newest.write_bytes(damaged)
        with pytest.raises(checkpoints.DamagedError):
            checkpoints.read(newest)
    newest.write_bytes(content)
    assert_is_epoch(checkpoints.read(newest), 2)


def test_a_file_that_is_cut_anywhere_is_noticed(newest):
    content = newest.read_bytes()
    for length in range(0, len(content), 13):
        newest.write_bytes(content[:length])
        with pytest.raises(checkpoints.DamagedError, match="its checksum is missing or wrong"):
            checkpoints.read(newest)


def replace_by_a_folder(path):
    path.unlink()
    (path / "below").mkdir(parents=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"more"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
        lambda path: path.write_bytes(b"a file"),
        lambda path: shutil.copy(path.with_name("1.safetensors"), path),
        replace_by_a_folder,
    ],
)
def test_damaged_checkpoint_is_noticed_and_the_one_before_is_used(folder, newest, damage, caplog):
    damage(newest)
    store = Store(folder, IDENTITY)
    assert_is_epoch(store.load(), 1)
    (record,) = caplog.records
    assert f"{newest} is damaged" in record.getMessage() and "the one before it is used" in record.getMessage()
    store.save(2, make_arrays(2), {"history": [{"loss": 2.1, "nan": float("nan")}]})  # the run gets there again
    store.wait()
    assert_is_epoch(Store(folder, IDENTITY).load(), 2)


def test_nothing_intact_is_an_error(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"every checkpoint in .* is damaged: start again with --overwrite"):
        Store(folder, IDENTITY).load()


def test_none_is_none(tmp_path):
    assert Store(tmp_path / "missing", IDENTITY).load() is None
    (tmp_path / "empty").mkdir()
    assert Store(tmp_path / "empty", IDENTITY).load() is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 0.2}, "learning_rate is 0.2 here but 0.1 in the run in"),
        ({"grid": [1, 3]}, r"grid is \[1, 3\] here but \[1, 2\]"),
        ({"data": "5678"}, 'data is "5678" here but "1234"'),
        ({"code": "abc"}, 'code is "abc" here but null'),
    ],
)
def test_another_run_is_refused_by_its_difference(folder, changed, message):
    with pytest.raises(InputError, match=message):
        Store(folder, {**IDENTITY, **changed}).load()


def test_tree_comes_back_and_another_one_is_refused():
    tree = {"a": np.zeros((2, 3), np.float32), "b": (np.int32(3), {"c": np.ones(1)})}
    arrays = flatten(tree, "state")
    assert set(arrays) == {"state.a", "state.b.0", "state.b.1.c"}
    back = unflatten(tree, arrays, "state")
    assert back["b"][1]["c"] is arrays["state.b.1.c"]
    with pytest.raises(InputError, match=r"state.d must be float64\[1\] in a checkpoint, but is missing"):
        unflatten({**tree, "d": np.ones(1)}, arrays, "state")
    with pytest.raises(InputError, match=r"state.a must be float32\[3, 2\] .* but is float32\[2, 3\]"):
        unflatten({"a": tree["a"].T}, arrays, "state")


def test_any_safetensors_reader_can_read_it(newest):
    with safetensors.safe_open(newest, "numpy") as file:
        body = json.loads(file.metadata()["checkpoint"])
        np.testing.assert_array_equal(file.get_tensor("columns"), make_arrays(2)["columns"])
    assert body["epoch"] == 2 and len(body["sha256"]) == 64 and body["identity"]["data"] == "1234"
