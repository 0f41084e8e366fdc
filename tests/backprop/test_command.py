"""``python -m jax_s6.backprop``: console output, files, and one sentence for each unusable argument."""

import errno
import re
import subprocess
import sys
from typing import Any

import pytest

from jax_s6 import cli
from jax_s6.backprop import BackpropConfig, compute_sheets, explain, files
from jax_s6.backprop.command import main, print_table
from tests.backprop.conftest import E


@pytest.fixture
def command(monkeypatch, capsys):
    """Returns a function that runs the command here and returns its exit status, standard output and error."""

    def run(*args: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["backprop", *map(str, args)])
        status = 0
        try:
            cli.run(main)
        except SystemExit as stop:
            status = stop.code
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


def test_the_command_writes_three_files_and_prints_whole_numbers(command, tmp_path):
    rates = [0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]  # wider than the 80 columns of a pipe
    status, output, errors = command("--out", tmp_path / "a" / "b", "--learning-rates", *rates, "--num-iterations", 11)
    assert (status, errors) == (0, "")
    names = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert names == ["backprop.csv", "backprop.png", "backprop.xlsx"]
    assert (tmp_path / "a" / "b" / "backprop.png").read_bytes().startswith(b"\x89PNG")
    table = [line.split() for line in output.splitlines() if re.match(r" +\d+ ", line)]
    sheets = compute_sheets(BackpropConfig(learning_rates=tuple(rates), num_iterations=11))
    assert table == [[str(k), *(f"{value:.8f}" for value in sheets[:, k, E])] for k in range(12)]
    assert "\x1b" not in output  # no colours in a pipe


def test_a_long_run_prints_its_ends_and_some_rows_between(capsys):
    config = BackpropConfig(learning_rates=(0.5,), num_iterations=301)
    print_table(compute_sheets(config), config)
    lines = capsys.readouterr().out.splitlines()
    iterations = [int(line.split()[0]) for line in lines if re.match(r" +\d+ ", line)]
    assert iterations[0] == 0 and iterations[-1] == 301 and len(iterations) <= 102


def test_iteration_0_alone_is_a_run_and_can_be_explained(command, tmp_path):
    status, output, errors = command("--out", tmp_path, "--num-iterations", 0, "--explain", "--targets", 0.01, 0.99)
    assert (status, errors) == (0, "")
    assert len((tmp_path / "backprop.csv").read_text().splitlines()) == 7
    assert explain((0.01, 0.99), 0.1) in output


def test_results_are_kept_unless_overwrite(command, tmp_path):
    (tmp_path / "backprop.csv").write_text("precious")
    status, output, errors = command("--out", tmp_path, "--num-iterations", 1)
    assert status == 2 and output == "" and len(errors.splitlines()) == 1
    assert "out already holds" in errors and "--overwrite" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["backprop.csv"]
    assert (tmp_path / "backprop.csv").read_text() == "precious"
    assert command("--out", tmp_path, "--num-iterations", 1, "--overwrite")[0] == 0
    assert (tmp_path / "backprop.csv").read_text().startswith("learning_rate,")


def test_a_full_disk_leaves_the_old_results_whole(command, tmp_path, monkeypatch):
    (tmp_path / "backprop.csv").write_text("precious")

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_workbook", no_space)  # the last of the three
    status, _, errors = command("--out", tmp_path, "--overwrite", "--num-iterations", 1)
    assert status == 2 and "No space left on device" in errors and len(errors.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["backprop.csv"]
    assert (tmp_path / "backprop.csv").read_text() == "precious"


@pytest.mark.parametrize(
    "args, message",
    [
        (["--learning-rates", "0"], "learning_rates must be > 0"),
        (["--learning-rates", "0.1", "-0.2"], "learning_rates must be > 0"),
        (["--learning-rates", "nan"], "learning_rates must be > 0"),
        (["--learning-rates", "inf"], "learning_rates must be > 0"),
        (["--learning-rates", "1e9"], "learning_rates must be > 0"),
        (["--learning-rates", "0.1", "0.10"], "learning_rates must differ"),
        (["--learning-rates"], "learning_rates takes 1 to 10"),
        (["--learning-rates", *"123456789", "10", "11"], "learning_rates takes 1 to 10"),
        (["--learning-rates", "fast"], "--learning-rates"),
        (["--targets", "0.5"], "targets takes 2"),
        (["--targets", "0.5", "0.5", "0.5"], "targets takes 2"),
        (["--targets", "0.5", "1.01"], "targets must be >= 0 and <= 1"),
        (["--targets", "nan", "0.5"], "targets must be >= 0 and <= 1"),
        (["--num-iterations", "-1"], "num_iterations must be a whole number from 0"),
        (["--num-iterations", "1000000000"], "num_iterations must be a whole number from 0"),
        (["--num-iterations", "1.5"], "--num-iterations"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(command, tmp_path, args, message):
    status, output, errors = command("--out", tmp_path / "new", *args)
    assert (status, output) == (2, "")
    assert message in errors and len(errors.splitlines()) == 1 and "Traceback" not in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_an_out_that_cannot_be_a_folder_is_one_sentence(command, tmp_path, name):
    (tmp_path / "file").write_text("precious")
    status, output, errors = command("--out", tmp_path / name, "--num-iterations", 1)
    assert (status, output) == (2, "")
    assert "out must be a folder" in errors and "--out" in errors and len(errors.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "precious"


def test_python_dash_m_runs_the_command(tmp_path):
    command = [sys.executable, "-m", "jax_s6.backprop", "--out", str(tmp_path), "--num-iterations", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "backprop.xlsx").exists()
