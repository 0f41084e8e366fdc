"""The text of ``--explain``: every step of iteration 0 with its chain rule, formula, numbers and result."""

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jax_s6.backprop.formulas import CHAIN_RULES, FORMULAS
from jax_s6.backprop.network import COLUMNS, INPUTS, WEIGHT_NAMES, WEIGHTS, Activations, Deltas, deltas, descend

HEADINGS: Mapping[str, str] = {  # by the first formula of a step
    "h1": "Forward 1. Each hidden unit adds its weighted inputs and applies the sigmoid.",
    "o1": "Forward 2. Each output unit adds the weighted hidden activations and applies the sigmoid.",
    "E1": "Forward 3. The error of an output is half the squared distance to its target.",
    "dE_do1": "Backward 1. Derivative of E by the sum of each output unit. The slope of the sigmoid is a * (1 - a).",
    "dE_dw5": "Backward 2. Derivative by each output weight: that of the unit it leads to, times the value it scales.",
    "dE_dh1": "Backward 3. Derivative by the sum of each hidden unit: what both outputs send back, times the slope.",
    "dE_dw1": "Backward 4. Derivative by each hidden weight: that of the unit it leads to, times the input it scales.",
}


def explain(targets: Sequence[float], learning_rate: float) -> str:
    """Write out every step of iteration 0, forward and backward.

    Args:
        targets: The targets t1 and t2, in [0, 1].
        learning_rate: Learning rate of the update that ends the explanation, > 0.

    Returns:
        Lines of plain ASCII text.
    """
    values = _values_at_iteration_0(targets)
    lines = ["Backpropagation at iteration 0, step by step", ""]
    lines += [f"  {name} = {_number(values[name])}" for name in ("i1", "i2", "t1", "t2", *WEIGHT_NAMES)]
    for name in FORMULAS:
        lines += ["", HEADINGS[name], ""] if name in HEADINGS else []
        lines.append(_step(name, values))
    lines += ["", f"Update of the weights at learning rate {learning_rate}: w - learning rate * dE/dw", ""]
    for name in WEIGHT_NAMES:
        slope = values[f"dE_d{name}"]
        after = _number(values[name] - learning_rate * slope)
        lines.append(f"  {name} = {_number(values[name])} - {learning_rate} * {_number(slope)} = {after}")
    return "\n".join(lines)


def _step(name: str, values: Mapping[str, float]) -> str:
    """Write the chain rule, the formula, the formula with numbers, and the result."""

    def insert(word: re.Match[str]) -> str:
        return _number(values[word[0]]) if word[0] in values else word[0]

    label, formula = name.replace("dE_", "dE/"), FORMULAS[name]
    forms = [CHAIN_RULES[name]] if name in CHAIN_RULES else []
    forms += [formula.replace("dE_", "dE/"), re.sub(r"[A-Za-z]\w*", insert, formula), _number(values[name])]
    return f"  {label} = " + f"\n  {' ' * len(label)} = ".join(forms)


def _number(value: float) -> str:
    return f"{value:.8g}" if value >= 0 else f"({value:.8g})"


def _values_at_iteration_0(targets: Sequence[float]) -> dict[str, float]:
    """Return the value of every name that occurs in ``FORMULAS``."""
    with jax.enable_x64(True):
        weights, inputs, goal = (jnp.array(numbers, dtype=float) for numbers in (WEIGHTS, INPUTS, targets))
        row = descend(jnp.ones(1), weights, inputs, goal, num_iterations=0)[0, 0]
        names = ("i1", "i2", "t1", "t2", *COLUMNS, *Deltas._fields)
        values = (*inputs, *goal, *row, *deltas(weights, Activations(*row[:8]), goal))
        return {name: float(value) for name, value in zip(names, values, strict=True)}
