"""A run by the command with its default flags, except for fewer epochs."""

import pytest

from jax_s6.train import command
from tests.faults.runs import write_bars

SETTINGS = ["--num-epochs", "4", "--holdout", "100"]  # three steps per epoch


@pytest.fixture(scope="session")
def folder(bars, tmp_path_factory):
    return write_bars(tmp_path_factory.mktemp("idx"), bars)


@pytest.fixture(scope="session")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    command.main(["--data-dir", str(folder), *SETTINGS, "--out", str(out)])
    return out
