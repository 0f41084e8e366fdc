"""Prediction as the command ``python -m jax_s6.predict`` computes it."""

import functools

import numpy as np

from benchmarks.arms import work
from benchmarks.arms.jax_tools import compile_timed, count, trace
from benchmarks.worker import Task, repeated
from jax_s6 import backend
from jax_s6.config import ModelConfig
from jax_s6.network import weights
from jax_s6.predict import model as predict_model


def ours(*, batch: int, precision: str = "float32", convolution: str = "auto") -> Task:
    """Predict on all CPU devices, from NumPy images, which the host sends each time, to NumPy logits."""
    backend.use_cpu_devices()
    config = ModelConfig(convolution=convolution, precision=precision)  # pyright: ignore[reportArgumentType]
    variables = weights.from_torch_state_dict(work.state_dict())
    images, labels = work.digits(batch)
    apply, seconds = compile_timed(predict_model.make_apply(variables, config), images)
    run = repeated(lambda: np.asarray(apply(images)))
    losses = [work.loss_of(np.asarray(apply(images)), labels)]
    profile = functools.partial(trace, run)
    return Task(run, batch, count(variables["params"]), losses, seconds, profile=profile)
