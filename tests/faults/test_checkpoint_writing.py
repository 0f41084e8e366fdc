"""Checkpoints are written completely or not at all, in the background; the newest and the best are kept."""

import os
import shutil
import subprocess
import time

import numpy as np
import pytest

from jax_s6.errors import InputError
from jax_s6.runs import checkpoints, files
from jax_s6.runs.checkpoints import CheckpointConfig, Store, epochs
from tests.faults.conftest import IDENTITY, assert_is_epoch, make_arrays
from tests.faults.runs import full_disk


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


def test_due_every_few_epochs_and_at_the_end():
    config = CheckpointConfig(checkpoint_every=3)
    assert [epoch for epoch in range(1, 9) if config.is_due(epoch, 8)] == [3, 6, 8]
    with pytest.raises(InputError, match="keep must be >= 1, got 0"):
        CheckpointConfig(keep=0)
