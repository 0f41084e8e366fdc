"""The text of ``--explain``: whoever computes what it shows gets what it shows."""

import math
import re

import pytest

from jax_s6.backprop import BackpropConfig, compute_sheets, explain
from jax_s6.backprop.formulas import FORMULAS


@pytest.mark.parametrize("targets", [(0.5, 0.5), (0.01, 0.99)])
def test_every_step_of_the_explanation_adds_up(targets):
    text = explain(targets, 2.0)
    assert text.isascii()  # any console can print it
    for name in FORMULAS:
        label = re.escape(name.replace("dE_", "dE/"))
        block = re.search(rf"^  {label} = (.*(?:\n {{4,}}= .*)+)", text, re.MULTILINE)
        assert block, name
        *_, numbers, result = re.split(r"\n +=", block[1])
        assert not re.search(r"[a-df-z]", numbers.replace("exp", "")), f"{name}: a name without its number in {numbers}"
        assert eval(numbers.replace("^", "**"), {"exp": math.exp}) == pytest.approx(eval(result), rel=1e-6)
    updates = re.findall(r"^  w\d = (.*) = (.*)$", text, re.MULTILINE)
    assert len(updates) == 8
    after = compute_sheets(BackpropConfig(learning_rates=(2.0,), targets=targets, num_iterations=1))[0, 1]
    for (numbers, result), weight in zip(updates, after[11:19], strict=True):
        assert eval(numbers) == pytest.approx(float(result), rel=1e-6) == pytest.approx(weight, rel=1e-6)


def test_the_explanation_shows_the_published_error():
    assert "= 0.014181378\n" in explain((0.5, 0.5), 0.1)
    assert "= 0.24251986\n" in explain((0.01, 0.99), 0.1)
