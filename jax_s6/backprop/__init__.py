"""Part 1 of the assignment, backpropagation by hand: ``python -m jax_s6.backprop``.

``network`` holds the mathematics, ``formulas`` the same as text for people and spreadsheets; the rest writes and draws.
"""

from jax_s6.backprop.experiment import BackpropConfig, compute_sheets
from jax_s6.backprop.explanation import explain
from jax_s6.backprop.network import INPUTS, WEIGHTS, error, gradients
from jax_s6.backprop.pictures import draw_graph

__all__ = ["BackpropConfig", "INPUTS", "WEIGHTS", "compute_sheets", "draw_graph", "error", "explain", "gradients"]
