"""Predict the digits in pictures: a trained network, and how any picture is brought into MNIST's form.

``python -m jax_s6.predict`` on the command line; ``load_model(run).predict(images)`` from Python.
"""

from jax_s6.predict.model import Model, load_model

__all__ = ["Model", "load_model"]
