"""Checkpoints: what is read is what was written or is refused; damage of any kind falls back to the one before."""

import errno
import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest

from jax_s6.errors import InputError
from jax_s6.runs import checkpoint_files
from jax_s6.runs import checkpoints as checkpoint
from jax_s6.runs.checkpoints import CheckpointConfig, Store
from tests.faults.runs import full_disk

IDENTITY = {"learning_rate": 0.1, "grid": (1, 2), "data": "1234"}


def make_arrays(seed):
    values = np.random.default_rng(seed).normal(size=(1, 300)).astype(np.float32)
    special = np.array([np.nan, -0.0, np.inf, 5e-324], np.float64)
    more = {"state.params.bias": values[:, 5:8].T, "scalar": np.array(seed, np.float32)}
    return {"state.params.kernel": values, "state.step": np.full(1, seed, np.int32), "metrics": special, **more}


@pytest.fixture
def folder(tmp_path):
    """Holds checkpoints of the epochs 1 and 2."""
    store = Store(tmp_path / "checkpoints", IDENTITY)
    store.clear()
    for epoch in (1, 2):
        store.save(epoch, make_arrays(epoch), {"history": [{"loss": 0.1 + epoch, "nan": float("nan")}]})
    store.wait()
    return store.folder


def files_of(path):
    return sorted(found for found in path.rglob("*") if found.is_file())


def assert_is_epoch(kept, epoch):
    assert kept.epoch == epoch and kept.about["history"][0]["loss"] == 0.1 + epoch
    assert np.isnan(kept.about["history"][0]["nan"])
    for name, array in make_arrays(epoch).items():
        assert kept.arrays[name].dtype == array.dtype and kept.arrays[name].shape == array.shape
        assert kept.arrays[name].tobytes() == array.tobytes(), name


def test_newest_is_read_bit_for_bit(folder, caplog):
    assert_is_epoch(Store(folder, IDENTITY).load(), 2)
    assert not caplog.records
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"], "nothing half-written is left"


def test_every_file_is_covered_by_a_checksum(folder):
    """Flips one bit in each file in turn: none may go unnoticed."""
    found = files_of(folder / "2")
    assert len(found) > 5
    for path in found:
        before = path.read_bytes()
        damaged = bytearray(before)
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        assert_is_epoch(Store(folder, IDENTITY).load(), 1)
        path.write_bytes(before)
    assert_is_epoch(Store(folder, IDENTITY).load(), 2)


def truncate(path):
    for file in files_of(path):
        file.write_bytes(file.read_bytes()[:-1])


def empty(path):
    for file in files_of(path):
        file.write_bytes(b"")


def delete_half(path):
    for file in files_of(path)[::2]:
        file.unlink()


def add_a_file(path):
    (path / "arrays" / "more").write_bytes(b"more")


def replace_by_the_one_before(path):
    shutil.rmtree(path)
    shutil.copytree(path.parent / "1", path)


def make_unreadable(path):
    (path / "checkpoint.json").unlink()
    (path / "checkpoint.json").mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        delete_half,
        add_a_file,
        replace_by_the_one_before,
        make_unreadable,
        lambda path: shutil.rmtree(path / "arrays"),
        lambda path: (path / "checkpoint.json").unlink(),
        lambda path: (shutil.rmtree(path), path.mkdir()),
        lambda path: (shutil.rmtree(path), path.write_bytes(b"a file")),
    ],
)
def test_damaged_checkpoint_is_noticed_and_the_one_before_is_used(folder, damage, caplog):
    damage(folder / "2")
    store = Store(folder, IDENTITY)
    assert_is_epoch(store.load(), 1)
    (record,) = caplog.records
    assert f"{folder / '2'} is damaged" in record.getMessage() and "the one before it is used" in record.getMessage()
    store.save(2, make_arrays(2), {"history": [{"loss": 2.1, "nan": float("nan")}]})  # the run gets there again
    store.wait()
    assert_is_epoch(Store(folder, IDENTITY).load(), 2)


def test_nothing_intact_is_said(folder):
    for epoch in ("1", "2"):
        empty(folder / epoch)
    with pytest.raises(InputError, match=r"every checkpoint in .* is damaged: start again with --overwrite"):
        Store(folder, IDENTITY).load()


def test_none_is_none(tmp_path):
    assert Store(tmp_path / "missing", IDENTITY).load() is None


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
    assert sorted(checkpoint.epochs(store.folder)) == [2, 3, 4], "2 is the best, and before 3, which is as good"
    resumed = Store(store.folder, IDENTITY, keep=1)
    assert resumed.load().epoch == 4
    resumed.save(5, make_arrays(5), {}, 0.1)
    resumed.wait()
    assert sorted(checkpoint.epochs(store.folder)) == [2, 5], "what is best is known from the files"


def test_without_scores_only_the_newest_are_kept(tmp_path):
    store = Store(tmp_path / "checkpoints", IDENTITY, keep=1)
    store.clear()
    for epoch in range(1, 12):
        store.save(epoch, make_arrays(epoch), {})
    store.wait()
    assert checkpoint.epochs(store.folder) == [11], "11 comes after 9"


def test_what_a_killed_writer_left_is_no_checkpoint(folder):
    shutil.copytree(folder / "2", folder / ".writing" / "3")
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    store = Store(folder, IDENTITY)
    assert store.load().epoch == 2
    store.save(3, make_arrays(3), {})
    store.wait()
    assert not (folder / ".writing").exists()


def test_vanished_folder_is_said_and_not_made_again(folder):
    store = Store(folder, IDENTITY)
    shutil.rmtree(folder.parent)
    store.save(3, make_arrays(3), {})
    with pytest.raises(InputError, match=r"checkpoint .*3 cannot be written \(No such file or directory\)"):
        store.wait()
    assert not folder.parent.exists()


@pytest.mark.parametrize("size", [0, 100, 600])
def test_failed_write_leaves_the_one_before(folder, size, capfd):
    store = Store(folder, IDENTITY)
    with full_disk(size):
        store.save(3, make_arrays(3), {})
        with pytest.raises(InputError, match=r"checkpoint .*3 cannot be written \(File too large\), those before it"):
            store.wait()
    assert_is_epoch(Store(folder, IDENTITY).load(), 2)
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
            store.save(2, make_arrays(2), {})
            with pytest.raises(InputError, match="No space left on device"):
                store.wait()
            assert_is_epoch(Store(mount / "checkpoints", IDENTITY).load(), 1)
            shutil.rmtree(mount / "checkpoints" / ".writing", ignore_errors=True)
            (mount / "filler").unlink()
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def test_cause_is_found_in_what_tensorstore_says():
    """Where the disk fills up after the room was found, its message is all there is."""
    text = (
        "Failed writing: \"/x: y/z\": Failed to write 99 bytes to file 11: No space [os_error_code='28'] [source_loc]"
    )
    error = checkpoint_files._as_os_error(ValueError(text))
    assert (error.errno, error.strerror) == (errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert checkpoint_files._as_os_error(ValueError("odd\nthing")).strerror == "odd"


def test_saving_waits_for_no_disk(tmp_path, monkeypatch):
    written = []

    def slow(path, arrays, values):
        time.sleep(0.3)
        written.append(values["epoch"])
        checkpoint_files.write(path, arrays, values)

    monkeypatch.setattr(checkpoint, "write", slow)
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
    arrays = checkpoint.flatten(tree, "state")
    assert set(arrays) == {"state.a", "state.b.0", "state.b.1.c"}
    back = checkpoint.unflatten(tree, arrays, "state")
    assert back["b"][1]["c"] is arrays["state.b.1.c"]
    with pytest.raises(InputError, match=r"state.d must be float64\[1\] in a checkpoint, but is missing"):
        checkpoint.unflatten({**tree, "d": np.ones(1)}, arrays, "state")
    with pytest.raises(InputError, match=r"state.a must be float32\[3, 2\] .* but is float32\[2, 3\]"):
        checkpoint.unflatten({"a": tree["a"].T}, arrays, "state")


def test_due_every_few_epochs_and_at_the_end():
    config = CheckpointConfig(checkpoint_every=3)
    assert [epoch for epoch in range(1, 9) if config.is_due(epoch, 8)] == [3, 6, 8]
    with pytest.raises(InputError, match="keep must be >= 1, got 0"):
        CheckpointConfig(keep=0)


def test_metadata_is_json_and_a_checksum(folder):
    """Anyone can read it, and say without Orbax whether a checkpoint is intact."""
    *text, digest = (folder / "2" / "checkpoint.json").read_text().splitlines()
    assert json.loads("\n".join(text))["epoch"] == 2 and len(digest) == 64
