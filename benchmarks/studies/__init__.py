"""Measurements of jax_s6 alone: its accuracy, the effect of its settings, and the cost of its checkpoints.

Each file is a command that trains for minutes. Comparisons with other libraries are in ``questions``.
"""
