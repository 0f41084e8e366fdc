"""The commands under one name."""

import subprocess
import sys

import pytest

from jax_s6 import __main__ as entry
from jax_s6 import cli


@pytest.fixture(autouse=True)
def arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))  # which main changes


def test_the_list_names_every_command_and_each_has_help(capsys):
    entry.main([])
    listed = capsys.readouterr().out
    for name in entry.COMMANDS:
        assert f"\n  {name} " in listed
        with pytest.raises(SystemExit) as stop:
            entry.main([name, "--help"])
        text = capsys.readouterr().out
        assert stop.value.code == 0 and "usage: " in text and name in text


def test_as_a_process_it_lists_the_commands_too():
    done = subprocess.run([sys.executable, "-m", "jax_s6"], capture_output=True, text=True, check=True)
    assert "\n  backprop " in done.stdout and done.stderr == ""


# Each command as with -m, but in one process: they share most of their imports.
RUN_ALL = """
import contextlib, io, runpy, sys
from jax_s6.__main__ import COMMANDS
del sys.modules["jax_s6.__main__"]
for name in ("jax_s6", *(f"jax_s6.{name}" for name in COMMANDS)):
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    assert "usage: " in printed.getvalue(), name
print(*(name for name in sys.modules if name.endswith("__main__")))
"""


def test_no_module_is_loaded_twice_when_a_command_runs_as_a_module():
    """A command's module that is loaded as ``__main__`` and once more by its name has each class twice."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", RUN_ALL], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "__main__\n"), done.stdout + done.stderr


def test_a_command_runs_with_its_own_arguments(tmp_path, capsys):
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: entry.main(["predict", str(tmp_path / "words.png")]))
    assert stop.value.code == 2 and "cannot be read as a picture" in capsys.readouterr().err


def test_an_unknown_command_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: entry.main(["trian"]))
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: command must be one of train, sweep")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_flags(shell, tmp_path):
    with pytest.raises(SystemExit) as stop:
        entry.main(["--tyro-write-completion", shell, str(tmp_path / "file")])
    text = (tmp_path / "file").read_text()
    assert not stop.value.code
    for word in ("predict", "--learning-rate", "--format", "--sheet", "--num-iterations"):
        assert word in text, word


@pytest.mark.parametrize("args", ["", "bash", "tcsh {tmp}/file", "bash {tmp}/no/file"])
def test_completion_that_cannot_be_written_is_one_sentence(args, tmp_path, capsys):
    args = ["--tyro-write-completion", *args.format(tmp=tmp_path).split()]
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: entry.main(args))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
