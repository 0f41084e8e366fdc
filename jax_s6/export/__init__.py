"""Write a trained network for other programs, and verify each file before it takes its place.

``python -m jax_s6.export`` on the command line; ``export(load_model(run), "onnx", file, images)`` from Python.
"""

from jax_s6.export.formats import export

__all__ = ["export"]
