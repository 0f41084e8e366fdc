"""What arms in JAX share: tasks from step functions, ahead-of-time compilation, traces."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.arms import work
from benchmarks.worker import Task

STEPS = 8


def count(params: Any) -> int:
    """Numbers in a tree of arrays."""
    return sum(x.size for x in jax.tree.leaves(params))


def compile_timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    """Compiles a jitted function for its arguments; returns it and the seconds."""
    start = time.perf_counter()
    return function.lower(*arguments).compile(), time.perf_counter() - start


def per_step_task(
    step: Callable[..., Any], state: Any, params: Any, batch: int, layout: Callable[[np.ndarray], np.ndarray]
) -> Task:
    """Makes a task of ``step(state, images, labels) -> (state, loss)``, compiled and called once a step.

    Args:
        step: The function.
        state: What it begins with, with ``work.state_dict``'s weights.
        params: The parameters, to count.
        batch: Images a step.
        layout: From normalised NHWC images to the step's.
    """
    images, labels = work.digits(STEPS * batch)
    x = jax.device_put(layout(work.normalised(images)).reshape(STEPS, batch, *layout(images[:1]).shape[1:]))
    batches = [(x[i], jax.device_put(labels[i * batch : (i + 1) * batch])) for i in range(STEPS)]
    num_params = count(params)
    compiled, compile_seconds = compile_timed(jax.jit(step, donate_argnums=0), state, *batches[0])
    losses, holder = [], [jax.tree.map(lambda leaf: leaf + 0, state)]
    for _ in range(2):
        holder[0], loss = compiled(holder[0], *batches[0])
        losses.append(float(loss))

    def run(n: int) -> None:
        for _ in range(n):
            for pair in batches:
                holder[0], _ = compiled(holder[0], *pair)
        jax.block_until_ready(holder[0])

    return Task(run, STEPS * batch, num_params, losses, compile_seconds, profile=functools.partial(trace, run))


def trace(run: Callable[[int], Any], folder: str) -> None:
    """Writes a trace of one call."""
    with jax.profiler.trace(folder):
        run(1)
