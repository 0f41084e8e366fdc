"""What a user can get wrong: exit status 2, one sentence that names it, nothing written, no traceback."""

import importlib
import shlex
import subprocess
import sys

import pytest

from jax_s6 import cli
from tests.cli.rows import ROWS


def arguments_of(command, text, places):
    """Completes a row's arguments: data that are right and an output that could be written, unless it names its own."""
    args = shlex.split(text.format_map(places))
    if "--out" not in args:
        args += ["--out", str(places["root"] / "out")]
    if command != "backprop" and "--data-dir" not in args:
        args += ["--data-dir", str(places["data"])]
    return args


def listing(folder):
    return {path: (path.stat().st_mtime_ns if path.is_file() else 0) for path in folder.rglob("*")}


def assert_says(error, message, places):
    """Checks that one line names what is wrong: alternatives are separated by ``|``, ``.*`` stands for anything."""
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n"), error
    wanted = [text.split(".*") for text in message.format_map(places).split("|")]
    assert any(all(part in error for part in parts) for parts in wanted), f"{error!r} does not say {message!r}"


@pytest.mark.parametrize(("command", "text", "message"), ROWS, ids=[f"{c} {t[:60]}" for c, t, _ in ROWS])
def test_bad_input_is_one_sentence_and_writes_nothing(command, text, message, places, capsys, monkeypatch):
    args, before = arguments_of(command, text, places), listing(places["root"])
    monkeypatch.setattr(sys, "argv", ["command", *args])
    with pytest.raises(SystemExit) as stop:
        cli.run(importlib.import_module(f"jax_s6.{command}.command").main)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert_says(printed.err, message, places)
    assert printed.out == "" and listing(places["root"]) == before


def test_there_are_at_least_a_hundred():
    assert len({text for _, text, _ in ROWS}) >= 100


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("train", "--learning-rate nan", "learning_rate must be > 0"),
        ("sweep", "--prune", "prune ranks lanes by held-out images"),
        ("backprop", "--targets 0.5 2", "targets must be >= 0 and <= 1"),
    ],
)
def test_as_a_process_it_is_the_same(command, text, message, places):
    line = [sys.executable, "-m", f"jax_s6.{command}", *arguments_of(command, text, places)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert_says(done.stderr, message, places)
