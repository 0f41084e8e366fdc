"""The numbers, against published spreadsheets, ``jax.grad`` and a computation with scalars; the formulas as text."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_s6.backprop import BackpropConfig, compute_sheets, network
from jax_s6.backprop.experiment import MAX_LEARNING_RATE
from jax_s6.backprop.formulas import FORMULAS
from jax_s6.backprop.network import COLUMNS, INPUTS, WEIGHT_NAMES, WEIGHTS
from tests.backprop.conftest import CLASS, OTHER, E

weights_strategy = st.lists(st.floats(-6, 6), min_size=8, max_size=8)
unit_pair = st.tuples(st.floats(0, 1), st.floats(0, 1))


@pytest.mark.parametrize(
    "config, at_start, at_iteration_10_of_rate_1",
    [(CLASS, "0.014181377938", "0.00778913"), (OTHER, "0.242519857348", "0.1324608")],
)
def test_the_error_equals_that_of_the_published_spreadsheet(config, at_start, at_iteration_10_of_rate_1):
    errors = compute_sheets(config)[:, :, E]
    assert errors.shape == (6, config.num_iterations + 1)
    assert {f"{error:.12f}" for error in errors[:, 0]} == {at_start}
    digits = len(at_iteration_10_of_rate_1) - 2
    assert f"{errors[4, 10]:.{digits}f}" == at_iteration_10_of_rate_1


gradients, autodiff = jax.jit(network.gradients), jax.jit(jax.grad(network.error))


@settings(max_examples=200, deadline=None)
@given(weights_strategy, st.tuples(st.floats(-3, 3), st.floats(-3, 3)), unit_pair)
def test_the_derived_gradients_equal_those_of_automatic_differentiation(weights, inputs, targets):
    with jax.enable_x64(True):
        problem = [jnp.array(numbers, dtype=float) for numbers in (weights, inputs, targets)]
        np.testing.assert_allclose(gradients(*problem), autodiff(*problem), rtol=0, atol=1e-12)


def test_the_gradients_of_w3_and_w4_use_the_slope_of_h2():
    # The slopes of the hidden units differ widely: a spreadsheet that copies a_h1 (1 - a_h1) is off by a factor of 5.
    weights, (i1, i2), (t1, t2) = (0.1, 0.2, 1.5, 2.0, 0.4, 0.45, 0.5, 0.55), (1.0, 1.0), (0.01, 0.99)

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    a_h1, a_h2 = sigmoid(0.1 * i1 + 0.2 * i2), sigmoid(1.5 * i1 + 2.0 * i2)
    a_o1, a_o2 = sigmoid(0.4 * a_h1 + 0.45 * a_h2), sigmoid(0.5 * a_h1 + 0.55 * a_h2)
    back = (a_o1 - t1) * a_o1 * (1 - a_o1) * 0.45 + (a_o2 - t2) * a_o2 * (1 - a_o2) * 0.55
    with jax.enable_x64(True):
        problem = [jnp.array(numbers) for numbers in (weights, (i1, i2), (t1, t2))]
        got = np.asarray(network.gradients(*problem))[2:4]
    np.testing.assert_allclose(got, back * a_h2 * (1 - a_h2), rtol=1e-12)
    assert np.all(np.abs(got - back * a_h1 * (1 - a_h1)) > 5e-3)


@settings(max_examples=50, deadline=None)
@given(weights_strategy, unit_pair)
def test_the_formulas_as_text_give_what_the_functions_give(weights, targets):
    """``--explain`` and the workbook show ``FORMULAS``."""
    with jax.enable_x64(True):
        problem = [jnp.array(numbers, dtype=float) for numbers in (weights, INPUTS, targets)]
        row = network.descend(jnp.ones(1), *problem, num_iterations=0)[0, 0].tolist()
    names = {"exp": math.exp, **dict(zip(("i1", "i2", "t1", "t2"), (*INPUTS, *targets), strict=True))}
    names |= dict(zip(WEIGHT_NAMES, weights, strict=True))
    for name, formula in FORMULAS.items():
        names[name] = eval(formula.replace("^", "**"), {}, names)
    np.testing.assert_allclose(row, [names[name] for name in COLUMNS], rtol=0, atol=1e-12)


def test_each_row_is_the_row_above_after_one_update():
    sheets = compute_sheets(OTHER)
    weights, slopes = sheets[:, :, 11:19], sheets[:, :, 19:27]
    rates = np.array(OTHER.learning_rates)[:, None, None]
    np.testing.assert_array_equal(weights[:, 0], np.tile(WEIGHTS, (6, 1)))
    np.testing.assert_allclose(weights[:, 1:], weights[:, :-1] - rates * slopes[:, :-1], rtol=0, atol=1e-15)


def test_a_rate_gives_the_same_numbers_alone_and_beside_others(class_sheets):
    for k, rate in enumerate(CLASS.learning_rates):
        alone = compute_sheets(BackpropConfig(learning_rates=(rate,)))
        np.testing.assert_allclose(class_sheets[k], alone[0], rtol=0, atol=1e-14)


def test_the_largest_rate_stays_where_a_spreadsheet_can_compute():
    """A spreadsheet's EXP overflows at 709, which jax's sigmoid does not: the two would differ from there on."""
    for targets in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)]:
        config = BackpropConfig(learning_rates=(MAX_LEARNING_RATE, 100.0, 30.0), targets=targets, num_iterations=500)
        sheets = compute_sheets(config)
        assert np.isfinite(sheets).all()
        assert np.abs(sheets[:, :, :8]).max() < 709
