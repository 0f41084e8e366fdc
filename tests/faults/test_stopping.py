"""Signals, on commands that only wait: exit statuses, the time it takes, and the command that resumes."""

import signal
import subprocess
import sys
import time

import pytest

# A shell's background job inherits an ignored SIGINT, and the test run may be one.
COMMAND = """
import ctypes, hashlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from jax_s6 import cli
from jax_s6.runs import signals
signals.GRACE_SECONDS = 1.0

def epochs(stopper, seconds):
    stopper.defer()
    stopper.resumable()
    print("ready", flush=True)
    for _ in range(1000):
        time.sleep(seconds)
        stopper.stop_if_requested()

def compile(stopper):
    # Like a compilation: one call that lets other threads run and is not interrupted by a signal.
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

def prepare(stopper):
    try:
        print("ready", flush=True)
        time.sleep(100)
    except Exception:
        print("taken for a failure")
    finally:
        print("cleaned up", flush=True)

def main():
    args = ["--out", "a folder", "--overwrite"]
    with signals.watching("python -m some.command", args) as stopper:
        WORK

cli.run(main)
"""
RESUME = "resume with: python -m some.command --out 'a folder' --resume\n"
START_AGAIN = "start again with: python -m some.command --out 'a folder' --overwrite\n"


def run(work, *numbers, pause=0.2):
    """Sends signals to a command; returns its status, its output, its errors, and the seconds it took to end."""
    command = [sys.executable, "-c", COMMAND.replace("WORK", work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        start = time.monotonic()
        for number in numbers:
            process.send_signal(number)
            time.sleep(pause)
        output, error = process.communicate(timeout=30)
        return process.returncode, output, error, time.monotonic() - start


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ends_at_the_end_of_an_epoch(number, status):
    got, _, error, _ = run("epochs(stopper, 0.4)", number)
    assert got == status
    notice, last = error.splitlines(keepends=True)
    assert notice.startswith("stopping after this epoch or in five seconds")
    assert last == f"stopped by {number.name}: {RESUME}"


def test_long_epoch_is_not_waited_for():
    got, _, error, seconds = run("epochs(stopper, 100)", signal.SIGTERM)
    assert got == 143 and error.endswith(RESUME) and seconds < 10


def test_second_interrupt_ends_at_once():
    got, _, error, seconds = run("signals.GRACE_SECONDS = 100; epochs(stopper, 100)", signal.SIGINT, signal.SIGINT)
    assert got == 130 and error.endswith(RESUME) and seconds < 10


def test_preparation_ends_at_once_and_cleans_up():
    got, output, error, seconds = run("prepare(stopper)", signal.SIGTERM)
    assert (got, output) == (143, "cleaned up\n") and seconds < 10
    assert error == f"stopped by SIGTERM: {START_AGAIN}", "there is no folder to resume yet"


def test_compilation_is_not_waited_for():
    got, _, error, seconds = run("compile(stopper)", signal.SIGINT)
    assert got == 130 and error == f"stopped by SIGINT: {START_AGAIN}" and seconds < 10


def test_interrupt_outside_a_run_has_no_traceback():
    got, _, error, _ = run("pass\n    print('ready', flush=True); time.sleep(100)", signal.SIGINT)
    assert (got, error) == (130, "")


def test_handlers_are_put_back():
    code = COMMAND.replace("WORK", "pass").replace("cli.run(main)", "main(); main(); print(signal.getsignal(2))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert "default_int_handler" in done.stdout


def test_works_in_another_thread():
    code = COMMAND.replace("WORK", "print('done')").replace(
        "cli.run(main)", "import threading; t = threading.Thread(target=main); t.start(); t.join()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == ("done\n", "")
