"""Train a grid of settings: ``python -m jax_s6.sweep``, and ``sweep(config, grid)`` from Python.

Its engine is in ``runs``.
"""

from jax_s6.sweep.result import SweepResult
from jax_s6.sweep.run import sweep

__all__ = ["SweepResult", "sweep"]
