"""Checkpoints: what is read is what was written or is refused; after any damage the checkpoint before it is used."""

import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest
import safetensors

from jax_s6.errors import InputError
from jax_s6.runs import checkpoints, files
from jax_s6.runs.checkpoints import CheckpointConfig, Store, epochs, flatten, unflatten
from tests.faults.runs import full_disk

IDENTITY = {"learning_rate": 0.1, "grid": (1, 2), "data": "1234"}


def make_arrays(seed):
    values = np.random.default_rng(seed).normal(size=(1, 300)).astype(np.float32)
    special = np.array([np.nan, -0.0, np.inf, 5e-324], np.float64)
    more = {"state.params.bias": values[:, 5:8].T, "scalar": np.array(seed, np.float32), "none": np.zeros((0, 2))}
    more["columns"] = np.arange(6, dtype=np.uint32).reshape(2, 3).T
    return {"state.params.kernel": values, "state.step": np.full(1, seed, np.int32), "metrics": special, **more}


@pytest.fixture
def folder(tmp_path):
    """Holds checkpoints of epochs 1 and 2."""
    store = Store(tmp_path / "checkpoints", IDENTITY)
    store.clear()
    for epoch in (1, 2):
        store.save(epoch, make_arrays(epoch), {"history": [{"loss": 0.1 + epoch, "nan": float("nan")}]})
    store.wait()
    return store.folder


@pytest.fixture
def newest(folder):
    return folder / "2.safetensors"


def assert_is_epoch(checkpoint, epoch):
    assert checkpoint.epoch == epoch and checkpoint.about["history"][0]["loss"] == 0.1 + epoch
    assert np.isnan(checkpoint.about["history"][0]["nan"])
    assert checkpoint.arrays.keys() == make_arrays(epoch).keys()
    for name, array in make_arrays(epoch).items():
        assert checkpoint.arrays[name].dtype == array.dtype and checkpoint.arrays[name].shape == array.shape
        assert checkpoint.arrays[name].tobytes() == array.tobytes(), name


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


def test_newest_and_best_are_kept(tmp_path):
    store = Store(tmp_path / "checkpoints", IDENTITY, keep=2)
    store.clear()
    for epoch, score in enumerate((0.2, 0.9, 0.9, 0.5), start=1):
        store.save(epoch, make_arrays(epoch), {}, score)
    store.wait()
    assert sorted(epochs(store.folder)) == [2, 3, 4], "2 is the best, and before 3, which is as good"
    resumed = Store(store.folder, IDENTITY, keep=1)
    assert resumed.load().epoch == 4
    resumed.save(5, make_arrays(5), {}, 0.1)
    resumed.wait()
    assert sorted(epochs(store.folder)) == [2, 5], "what is best is known from the files"


def test_without_scores_only_the_newest_are_kept(tmp_path):
    store = Store(tmp_path / "checkpoints", IDENTITY, keep=1)
    store.clear()
    for epoch in range(1, 12):
        store.save(epoch, make_arrays(epoch), {})
    store.wait()
    assert epochs(store.folder) == [11], "11 comes after 9"


def test_foreign_and_incomplete_files_are_ignored(folder, newest, caplog):
    for name in (
        ".DS_Store",
        "._3.safetensors",
        ".3.part99.safetensors",
        "3.safetensors.tmp",
        "3 (1).safetensors",
        "4",
    ):
        shutil.copy(newest, folder / name)
    (folder / "5").mkdir()
    store = Store(folder, IDENTITY)
    assert store.load().epoch == 2 and not caplog.records
    store.save(3, make_arrays(3), {})
    store.wait()
    assert sorted(epochs(folder)) == [2, 3] and (folder / ".DS_Store").exists()


def test_vanished_folder_is_an_error_and_not_created_again(folder):
    store = Store(folder, IDENTITY)
    shutil.rmtree(folder.parent)
    store.save(3, make_arrays(3), {})
    with pytest.raises(InputError, match=r"checkpoints/3.* cannot be written \(No such file or directory\): earlier"):
        store.wait()
    assert not folder.parent.exists()


def test_folder_that_cannot_be_synced_is_no_error(folder, monkeypatch):
    """Some network file systems, such as SMB and sshfs, refuse it."""
    sync, refused = files._sync, []

    def only_files(path, mode):
        if path.is_dir():
            refused.append(path)
            raise OSError(22, "Invalid argument")
        sync(path, mode)

    monkeypatch.setattr(files, "_sync", only_files)
    store = Store(folder, IDENTITY)
    store.save(3, make_arrays(3), {})
    store.wait()
    assert store.load().epoch == 3 and refused == [folder]


@pytest.mark.parametrize("size", [0, 100, 600])
def test_failed_write_leaves_the_one_before(folder, size, capfd):
    store = Store(folder, IDENTITY)
    with full_disk(size):
        store.save(3, make_arrays(3), {})
        with pytest.raises(InputError, match=r"/3.* cannot be written \(File too large\): earlier checkpoints"):
            store.wait()
    assert_is_epoch(Store(folder, IDENTITY).load(), 2)
    assert len(list(folder.iterdir())) == 2, "the incomplete file is removed"
    assert "Traceback" not in capfd.readouterr().err


def test_full_file_system_leaves_the_one_before(tmp_path):
    """Fills a small file system of its own up to each of several levels."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", mount], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        store = Store(mount / "checkpoints", IDENTITY)
        store.clear()
        store.save(1, make_arrays(1), {"history": [{"loss": 1.1, "nan": float("nan")}]})
        store.wait()
        usage = os.statvfs(mount)
        for left in (0, 1, 5, 15):  # blocks of 4 KiB
            (mount / "filler").write_bytes(bytes((usage.f_bavail - left) * usage.f_bsize))
            store.save(2, {"16 blocks": np.zeros(8192)}, {})
            with pytest.raises(InputError, match="No space left on device"):
                store.wait()
            assert_is_epoch(Store(mount / "checkpoints", IDENTITY).load(), 1)
            (mount / "filler").unlink()
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def test_saving_waits_for_no_disk(tmp_path, monkeypatch):
    write, written = checkpoints.write, []

    def slow(path, arrays, text):
        time.sleep(0.3)
        written.append(int(path.stem))
        write(path, arrays, text)

    monkeypatch.setattr(checkpoints, "write", slow)
    store = Store(tmp_path / "checkpoints", IDENTITY)
    store.clear()
    store.save(1, make_arrays(1), {})
    assert written == [], "the caller waited"
    store.save(2, make_arrays(2), {})
    assert written == [1], "one at a time"
    store.wait()
    assert written == [1, 2]


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


def test_due_every_few_epochs_and_at_the_end():
    config = CheckpointConfig(checkpoint_every=3)
    assert [epoch for epoch in range(1, 9) if config.is_due(epoch, 8)] == [3, 6, 8]
    with pytest.raises(InputError, match="keep must be >= 1, got 0"):
        CheckpointConfig(keep=0)


def test_any_safetensors_reader_can_read_it(newest):
    with safetensors.safe_open(newest, "numpy") as file:
        body = json.loads(file.metadata()["checkpoint"])
        np.testing.assert_array_equal(file.get_tensor("columns"), make_arrays(2)["columns"])
    assert body["epoch"] == 2 and len(body["sha256"]) == 64 and body["identity"]["data"] == "1234"
