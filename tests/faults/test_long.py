"""Long runs and several processes; minutes each, therefore behind the marker slow."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.faults.runs import PLAIN, PLAINEST, finish, kill, start, write_bars

pytestmark = pytest.mark.slow


def test_two_hundred_epochs_leak_nothing_and_compile_once(bars, tmp_path):
    """With a checkpoint after every epoch; chex's counter in the trainer raises at a second trace.

    With one arena: glibc has one for each of several threads by default, each of which grows to what the largest piece
    of work in it needed, over hundreds of checkpoints.
    """
    folders = ["--data-dir", str(write_bars(tmp_path, bars)), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "tests.faults.memory", *folders, *PLAINEST, "--num-epochs", "200"]
    done = subprocess.run(command, env=os.environ | {"MALLOC_ARENA_MAX": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    growth = found["sizes"][-1] / found["sizes"][9] - 1
    assert growth < 0.01, f"{growth:.2%} more after epoch 200 than after epoch 10"
    assert len(found["sizes"]) == 200 and found["open_files"] < 20, "files are left open"


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def two_processes(arguments):
    common = [*arguments, "--distributed", "--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
    running = [start("sweep", [*common, "--process-id", str(number)]) for number in (0, 1)]
    try:
        yield running
    finally:
        for process in running:
            kill(process) if process.returncode is None else None


@pytest.mark.parametrize("victim", [0, 1])
def test_two_processes_of_which_one_is_killed_end_as_if_never_stopped(bars, tmp_path, victim):
    data = write_bars(tmp_path, bars)
    grid = [*PLAIN, "--num-epochs", "30", *"--learning-rate 0.02 0.05 0.1 --seed 1 2".split()]
    arguments = ["--data-dir", str(data), *grid, "--out"]
    with two_processes([*arguments, str(tmp_path / "undisturbed")]) as running:
        for process in running:
            finish(process)
    out = tmp_path / "out"
    with two_processes([*arguments, str(out)]) as running:
        while not (out / "checkpoints" / "1.safetensors").exists():
            assert [process.poll() for process in running] == [None, None]
            time.sleep(0.05)
        time.sleep(random.uniform(0, 2))
        assert kill(running[victim]), "it was too quick for this test"
        begin = time.monotonic()
        error = finish(running[1 - victim], 1)
        assert time.monotonic() - begin < 60
        assert "error: another process of the sweep was lost" in error and "--resume" in error
    with two_processes([*arguments, str(out), "--resume"]) as running:
        for process in running:
            finish(process)
    for name in ("sweep.csv", "history.csv"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_two_processes_end_on_a_signal_and_can_be_resumed(bars, tmp_path):
    data = write_bars(tmp_path, bars)
    arguments = ["--data-dir", str(data), *PLAIN, "--num-epochs", "500", "--out", str(tmp_path / "out")]
    with two_processes(arguments) as running:
        while not (tmp_path / "out" / "checkpoints" / "1.safetensors").exists():
            assert [process.poll() for process in running] == [None, None]
            time.sleep(0.05)
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            assert "resume with: python -m jax_s6.sweep" in finish(process, 143)
