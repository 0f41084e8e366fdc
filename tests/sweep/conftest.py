"""A sweep by the command."""

import pytest

from jax_s6.sweep import command
from tests.faults.runs import PLAINEST, write_bars

# The same program as that of tests/runs/test_engine.py, which is then compiled once.
SETTINGS = ["--num-epochs", "2", "--holdout", "100", *PLAINEST, "--batch-size", "32"]
GRID = "--learning-rate 0.01 0.02 0.05 --seed 1".split()


@pytest.fixture(scope="module")
def folder(bars, tmp_path_factory):
    return write_bars(tmp_path_factory.mktemp("idx"), bars)


@pytest.fixture(scope="module")
def arguments(folder):
    return ["--data-dir", str(folder), *SETTINGS, *GRID]


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    """The folder of a sweep on two devices."""
    out = tmp_path_factory.mktemp("sweeps") / "first"
    command.main([*arguments, "--devices", "2", "--out", str(out)])
    return out
