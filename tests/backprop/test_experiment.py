"""The settings of Part 1: types that only Python can pass, and float64 that does not spread."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6.backprop import BackpropConfig, compute_sheets, explain
from jax_s6.errors import InputError


def test_the_settings_refuse_what_only_python_can_pass():
    for n in (1.5, True, "3"):
        with pytest.raises(InputError, match="num_iterations"):
            BackpropConfig(num_iterations=n)  # type: ignore[arg-type]


def test_rates_and_targets_may_be_whole_numbers():
    sheets = compute_sheets(BackpropConfig(learning_rates=(1, 2), targets=(0, 1), num_iterations=2))
    assert sheets.dtype == np.float64


def test_float64_stays_local(class_sheets):
    assert class_sheets.dtype == np.float64
    explain((0.5, 0.5), 0.1)
    assert jnp.zeros(1).dtype == jnp.float32
