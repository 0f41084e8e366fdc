"""One run at a time in a folder, and a lock that ends with its process."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from jax_s6.config import RECIPES
from jax_s6.errors import InputError
from jax_s6.network import net
from jax_s6.runs.folder import LOCK, OutputConfig, claimed, needs_work, require_same
from jax_s6.train.run import TrainResult, write_run
from tests.faults.runs import full_disk

HOLD = "import sys, time; from pathlib import Path; from jax_s6.runs.folder import claimed\n"
HOLD += "with claimed(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(100)"


@pytest.fixture
def holder(tmp_path):
    """Another process that has locked the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_run_is_refused_and_the_lock_of_a_killed_one_is_none(holder, tmp_path):
    with pytest.raises(InputError, match=rf"being written by another run \(process {holder.pid} on .*\): wait for it"):
        with claimed(tmp_path):
            pass
    assert (tmp_path / LOCK).exists(), "the refused one left it alone"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists(), "nobody could remove it"
    with claimed(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_only_one_of_many_has_it(tmp_path):
    inside, most, errors = [], [], []

    def work():
        for _ in range(50):
            try:
                with claimed(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except InputError:
                errors.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) + len(errors) == 200


def test_half_written_files_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".curves.part123.png").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / "checkpoints" / "group-0").mkdir(parents=True)
    (tmp_path / "checkpoints" / "group-0" / ".3.part123.safetensors").write_bytes(b"")
    with claimed(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK, ".hidden", "checkpoints"}
        assert not list((tmp_path / "checkpoints" / "group-0").iterdir())


def test_folder_that_vanishes_is_no_second_error(tmp_path):
    with claimed(tmp_path / "out"):
        (tmp_path / "out" / LOCK).unlink()
        (tmp_path / "out").rmdir()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog, number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with claimed(tmp_path):
        pass
    assert "this file system has no locks" in caplog.text and not list(tmp_path.iterdir())


def test_lock_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / LOCK).mkdir()
    with pytest.raises(InputError, match=r"out .* cannot be written to \(Is a directory\): give another folder"):
        with claimed(tmp_path):
            pass


@pytest.mark.parametrize(
    ("files", "flags", "wanted"),
    [
        ([], {}, True),
        ([], {"resume": True}, True),
        ([], {"overwrite": True}, True),
        (["checkpoints/x"], {"resume": True}, True),
        (["checkpoints/x"], {"overwrite": True}, True),
        (["checkpoints/x"], {}, "unfinished run: --resume to resume it, --overwrite to replace it"),
        (["summary.json"], {}, "already holds a run"),
        (["summary.json"], {"overwrite": True}, True),
        (["summary.json", "checkpoints/x"], {"resume": True}, False),
        ([], {"resume": True, "overwrite": True}, "give one of the two"),
    ],
)
def test_what_is_there_decides(tmp_path, files, flags, wanted):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    if isinstance(wanted, bool):
        assert needs_work(tmp_path, OutputConfig(**flags)) is wanted
    else:
        with pytest.raises(InputError, match=wanted):
            needs_work(tmp_path, OutputConfig(**flags))


@pytest.mark.parametrize(
    "summary", [b"", b"[]", b"5", b"{}", b'{"config": 5}', b"\xff", b'{"config": {}, "best_lane": 5}', b"[" * 10_000]
)
def test_a_finished_run_with_a_damaged_summary_is_refused_in_a_sentence(tmp_path, summary):
    (tmp_path / "summary.json").write_bytes(summary)
    with pytest.raises(InputError, match="summary.json"):
        require_same(tmp_path, RECIPES["best"])


@pytest.mark.parametrize("other", [{"grid": {"seed": (0, 2)}}, {"prune": False}, {"config": RECIPES["s6"]}])
def test_a_finished_sweep_is_complete_only_for_the_flags_that_it_had(tmp_path, other):
    wanted = {"config": RECIPES["best"], "grid": {"seed": (0, 1)}, "prune": True}
    summary = {"config": dataclasses.asdict(wanted["config"]), "grid": wanted["grid"], "best_lane": {"pruned_at": None}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    require_same(tmp_path, **wanted)
    with pytest.raises(InputError, match=r"is .* here but .* in the finished run .*: give another --out"):
        require_same(tmp_path, **{**wanted, **other})


def test_results_on_a_full_disk_are_whole_or_not_there(tmp_path):
    """Each level is full at another file; the summary, which says that all is there, is the last."""
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(net.init, jax.random.key(0)))
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
    result = TrainResult(variables, [{"epoch": 1, **dict.fromkeys(names, 0.5)}], {"text": "x" * 100_000})
    whole = tmp_path / "whole"
    whole.mkdir()
    write_run(whole, RECIPES["best"], result)
    for number, size in enumerate((0, 1000, 20_000, 60_000)):
        out = tmp_path / str(number)
        out.mkdir()
        with full_disk(size), pytest.raises(InputError, match="cannot be written .*: free disk space"):
            write_run(out, RECIPES["best"], result)
        left = [path.name for path in out.iterdir()]
        assert "summary.json" not in left
        for name in left:
            assert (out / name).read_bytes() == (whole / name).read_bytes()
    with full_disk(0), claimed(tmp_path / "locked"):
        pass
