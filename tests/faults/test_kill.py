"""Runs that are killed and resumed: all must end as the run that was never stopped, bit for bit."""

import random
import signal
import subprocess
import sys
import time

import pytest

from jax_s6 import cli
from jax_s6.runs import checkpoints
from jax_s6.train import command as train
from tests.faults.runs import PLAIN, assert_same, finish, kill, results, split_command, start, wait_for, write_bars

EPOCHS = 10


@pytest.fixture(scope="module")
def arguments(bars, tmp_path_factory):
    data = write_bars(tmp_path_factory.mktemp("idx"), bars)
    return ["--data-dir", str(data), *PLAIN, "--num-epochs", str(EPOCHS), "--holdout", "100"]


@pytest.fixture(scope="module")
def undisturbed(arguments, tmp_path_factory):
    """A run that was never stopped; the programs that it compiles are in the cache for the others."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    error = finish(start("train", [*arguments, "--out", str(out)]))
    assert error == ""
    return results(out)


def newest(out):
    return max([0, *checkpoints.epochs(out / "checkpoints")])


def test_stopped_three_times_it_ends_as_if_never_stopped(arguments, undisturbed, tmp_path, capsys):
    """Before there is anything to resume, while a checkpoint is written, and by a signal; each time --resume."""
    out = tmp_path / "out"
    arguments = [*arguments, "--out", str(out)]
    process = start("train", [*arguments, "--resume"])
    time.sleep(random.uniform(0.2, 2))
    assert kill(process)
    process = start("train", [*arguments, "--resume"])
    wait_for(lambda: list((out / "checkpoints").glob(".*.part*")), process)
    assert kill(process) and (out / ".lock").exists(), "the lock file that it left locks nothing"
    process = start("train", [*arguments, "--resume"])
    wait_for(lambda: newest(out) >= 3, process)
    process.send_signal(signal.SIGSTOP)  # it waits, or it could end in the meantime
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: train.main([*arguments, "--resume"]))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert f"out {out} is being written by another run (process {process.pid} on" in error
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    error = finish(process, 143)
    assert newest(out) < EPOCHS, "it was too quick for this test"
    resumed = split_command(error)
    assert resumed == [*arguments, "--resume"]
    assert finish(start("train", resumed)) == ""
    assert_same(results(out), undisturbed)


@pytest.fixture(scope="module")
def seconds(arguments, undisturbed, tmp_path_factory):
    """The time that a run takes here, with its programs in the cache."""
    begin = time.monotonic()
    finish(start("train", [*arguments, "--out", str(tmp_path_factory.mktemp("timed") / "out")]))
    return time.monotonic() - begin


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_killed_at_a_random_instant(arguments, undisturbed, seconds, tmp_path, number):
    """Long form: the instants are spread over the time that a run takes here."""
    out = tmp_path / "out"
    arguments = [*arguments, "--out", str(out), "--resume"]
    process = start("train", arguments)
    time.sleep(random.uniform(seconds * number / 20, seconds * (number + 1) / 20))
    kill(process)
    finish(start("train", arguments))
    assert_same(results(out), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_killed_while_the_data_are_prepared(number, tmp_path):
    code = "from jax_s6.data import load; from jax_s6.config import DataConfig; print(load(DataConfig()).checksum)"
    environment = {"JAX_S6_CACHE": str(tmp_path / "cache"), "TFDS_DATA_DIR": str(tmp_path / "none")}

    def load():
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", code], env={**environment, "PATH": "/bin"}, **pipes)

    process = load()
    time.sleep(random.uniform(2 + 3 * number, 5 + 3 * number))
    kill(process)
    process = load()
    output, error = process.communicate(timeout=300)
    from jax_s6 import data
    from jax_s6.config import DataConfig

    assert process.returncode == 0, error
    assert output.strip() == data.load(DataConfig()).checksum


@pytest.mark.slow
def test_killed_sweep_ends_as_if_never_stopped(arguments, tmp_path):
    arguments = [*arguments, *"--learning-rate 0.02 0.05 0.1 --batch-size 50 25 --prune".split()]
    finish(start("sweep", [*arguments, "--out", str(tmp_path / "undisturbed")]))
    out = tmp_path / "out"
    arguments = [*arguments, "--out", str(out), "--resume"]
    kills = 0
    while kills < 6:
        process = start("sweep", arguments)
        before = len(seen(out))
        wait_for(lambda: len(seen(out)) > before or process.poll() is not None, process)  # noqa: B023
        time.sleep(random.uniform(0, 0.3))
        kills += kill(process)
        if (out / "summary.json").exists():
            break
    finish(start("sweep", arguments))
    for name in ("sweep.csv", "history.csv"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert kills > 2


def seen(out):
    """Returns the checkpoints of all groups."""
    return set(out.glob("checkpoints/group-*/[0-9]*.safetensors"))


def test_damaged_newest_checkpoint_costs_an_epoch_and_nothing_else(arguments, undisturbed, tmp_path):
    out = tmp_path / "out"
    arguments = [*arguments, "--out", str(out), "--resume"]
    process = start("train", arguments)
    wait_for(lambda: newest(out) >= 3, process)
    kill(process)
    damaged = newest(out)
    path = out / "checkpoints" / f"{damaged}.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    error = finish(start("train", arguments))
    assert f"{path} is damaged" in error and error.count("\n") == 1
    assert_same(results(out), undisturbed)
    assert checkpoints.read(out / "checkpoints" / f"{EPOCHS}.safetensors").arrays
