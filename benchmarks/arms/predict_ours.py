"""Our arm of ``predict``: the compiled forward pass, from NumPy to NumPy."""

import functools

import numpy as np

from benchmarks.arms import work
from benchmarks.arms.jax_tools import compile_timed, count, trace
from benchmarks.worker import Task
from jax_s6 import backend
from jax_s6.config import ModelConfig
from jax_s6.network import weights
from jax_s6.predict import model as predict_model


def loss_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean cross-entropy over the 16 outputs."""
    logits = np.asarray(logits, np.float64)
    highest = logits.max(1, keepdims=True)
    log_sum = highest[:, 0] + np.log(np.exp(logits - highest).sum(1))
    return float((log_sum - logits[np.arange(len(labels)), labels]).mean())


def ours(*, batch: int, precision: str = "float32", convolution: str = "auto") -> Task:
    """As the ``predict`` command computes it, on all CPU devices; images come from the host each time."""
    backend.use_cpu_devices()
    config = ModelConfig(convolution=convolution, precision=precision)  # pyright: ignore[reportArgumentType]
    variables = weights.from_torch_state_dict(work.state_dict())
    images, labels = work.digits(batch)
    apply, seconds = compile_timed(predict_model.make_apply(variables, config), images)

    def run(n: int) -> None:
        for _ in range(n):
            np.asarray(apply(images))

    losses = [loss_of(np.asarray(apply(images)), labels)]
    profile = functools.partial(trace, run)
    return Task(run, batch, count(variables["params"]), losses, seconds, profile=profile)
