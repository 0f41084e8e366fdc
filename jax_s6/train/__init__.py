"""Train one network: ``python -m jax_s6.train``, and ``train(config, dataset)`` from Python.

A run is a sweep with one lane: the epoch loop is in ``runs.engine``.
"""

from jax_s6.train.run import TrainResult, train

__all__ = ["TrainResult", "train"]
