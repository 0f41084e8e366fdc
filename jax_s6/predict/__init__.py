"""Name the digits in pictures: ``python -m jax_s6.predict``, and ``load_model(run).predict(images)`` from Python."""

from jax_s6.predict.model import Model, load_model

__all__ = ["Model", "load_model"]
