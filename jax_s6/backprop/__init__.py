"""Part 1 of the assignment, backpropagation by hand: ``python -m jax_s6.backprop``."""
