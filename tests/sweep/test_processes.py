"""Several processes as one sweep: their results, what is refused, and the loss of one of them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from jax_s6.errors import InputError
from jax_s6.runs.processes import DistributedConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distributed": True, "coordinator": "a:1"}, "given together"),
        ({"distributed": True, "coordinator": "a", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"distributed": True, "coordinator": "a:1", "num_processes": 2, "process_id": 2}, "process_id must be >= 0"),
    ],
)
def test_bad_processes_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        DistributedConfig(**settings)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def processes(arguments, out, count=2, started=(0, 1)):
    """Starts processes of one sweep on this machine, and ends those that are left."""
    common = [sys.executable, "-m", "jax_s6.sweep", *arguments, "--out", str(out), "--distributed"]
    common += ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", str(count), "--process-id"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [subprocess.Popen([*common, str(number)], **pipes) for number in started]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_two_processes_give_what_one_gives(arguments, finished, tmp_path):
    with processes(arguments, tmp_path) as running:
        outputs = [process.communicate(timeout=100)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert "epoch   2/2" in outputs[0] and "epoch" not in outputs[1], "only process 0 prints"
    for name in ("sweep.csv", "history.csv"):
        assert (tmp_path / name).read_text() == (finished / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_death_of_a_process_ends_the_other_with_a_sentence(arguments, tmp_path, victim):
    with processes([*arguments, "--num-epochs", "9999"], tmp_path) as running:
        while not (tmp_path / "checkpoints" / "1.safetensors").exists():
            assert [process.poll() for process in running] == [None, None]
            time.sleep(0.2)
        os.kill(running[victim].pid, signal.SIGKILL)
        output, _ = running[1 - victim].communicate(timeout=60)
    assert "error: another process of the sweep was lost" in output and "Traceback" not in output
    assert running[1 - victim].returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_process_that_stays_alone_ends_with_a_sentence(arguments, tmp_path, number):
    with processes(arguments, tmp_path, started=(number,)) as (process,):
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and output.startswith("error: distributed: not all processes connected")
