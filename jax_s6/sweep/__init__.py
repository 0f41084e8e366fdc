"""Train a grid of settings: ``python -m jax_s6.sweep``, and ``sweep(config, grid)`` from Python.

The epoch loop is in ``runs.engine``.
"""

from jax_s6.sweep.run import SweepResult, sweep

__all__ = ["SweepResult", "sweep"]
