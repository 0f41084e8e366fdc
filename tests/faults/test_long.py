"""Long runs and several processes; minutes each, therefore behind the marker slow."""

import contextlib
import dataclasses
import gc
import random
import signal
import socket
import time

import psutil
import pytest

from jax_s6 import train
from jax_s6.checkpoint import Store
from jax_s6.config import RECIPES, AugmentConfig, ModelConfig
from jax_s6.train_state import Keeper
from tests.faults.runs import PLAIN, finish, kill, start, write_bars

pytestmark = pytest.mark.slow


def test_two_hundred_epochs_leak_nothing_and_compile_once(bars, tmp_path):
    """With a checkpoint an epoch; chex's counter in the trainer raises at a second trace."""
    config = dataclasses.replace(
        RECIPES["best"], num_epochs=200, batch_size=50, model=ModelConfig(), augment=AugmentConfig()
    )
    process, sizes = psutil.Process(), []
    store = Store(tmp_path / "checkpoints", {})
    store.clear()

    def on_epoch(row, rate):
        gc.collect()
        sizes.append(process.memory_info().rss)

    train.train(config, bars, on_epoch=on_epoch, keeper=Keeper(store))
    growth = sizes[-1] / sizes[9] - 1
    assert growth < 0.01, f"{growth:.1%} more after epoch 200 than after epoch 10"
    assert len(process.open_files()) < 20, "files are left open"


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
        while not (out / "checkpoints" / "group-0" / "1").exists():
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


def test_two_processes_end_on_a_signal_and_go_on(bars, tmp_path):
    data = write_bars(tmp_path, bars)
    arguments = ["--data-dir", str(data), *PLAIN, "--num-epochs", "500", "--out", str(tmp_path / "out")]
    with two_processes(arguments) as running:
        while not (tmp_path / "out" / "checkpoints" / "group-0" / "1").exists():
            assert [process.poll() for process in running] == [None, None]
            time.sleep(0.05)
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            assert "go on with: python -m jax_s6.sweep" in finish(process, 143)
