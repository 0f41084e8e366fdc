"""Train one network: ``python -m jax_s6.train``, and ``train(config, dataset)`` from Python.

A run is a sweep of one lane: its engine is in ``runs``.
"""

from jax_s6.train.command import TrainResult, train

__all__ = ["TrainResult", "train"]
