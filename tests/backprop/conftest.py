"""The two settings whose results are published, and the files that one of them leads to."""

from pathlib import Path

import numpy as np
import pytest

from jax_s6.backprop import BackpropConfig, compute_sheets
from jax_s6.backprop.files import write_files
from jax_s6.backprop.network import COLUMNS

CLASS = BackpropConfig()
OTHER = BackpropConfig(targets=(0.01, 0.99), num_iterations=50)
E = COLUMNS.index("E")


@pytest.fixture(scope="session")
def class_sheets() -> np.ndarray:
    return compute_sheets(CLASS)


@pytest.fixture(scope="session")
def written(class_sheets, tmp_path_factory) -> Path:
    """The folder of the three files."""
    folder = tmp_path_factory.mktemp("backprop")
    write_files(class_sheets, BackpropConfig(out=folder))
    return folder
