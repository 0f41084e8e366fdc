"""What the arms in JAX share: compilation ahead of time, tasks made of training steps, and traces."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.arms import work
from benchmarks.worker import Task, repeated

STEPS = 8


def count(params: Any) -> int:
    """Return the number of numbers in a tree of arrays."""
    return sum(x.size for x in jax.tree.leaves(params))


def compile_timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    """Compile a jitted function for its arguments; return the compiled function and the seconds."""
    start = time.perf_counter()
    return function.lower(*arguments).compile(), time.perf_counter() - start


def training_task(step: Callable[..., Any], state: Any, inputs: Sequence[tuple], images: float, **details: Any) -> Task:
    """Return a task that calls ``state, _ = step(state, *input)`` for each of the inputs.

    Args:
        step: A compiled training step, or a compiled epoch.
        state: The first state. ``step`` may donate it.
        inputs: Further arguments of each call.
        images: Number of images of all inputs together.
        **details: Further fields of the task.
    """
    holder = [state]

    def once() -> None:
        for item in inputs:
            holder[0], _ = step(holder[0], *item)

    run = repeated(once, lambda: jax.block_until_ready(holder[0]))
    return Task(run, images, **{"profile": functools.partial(trace, run), **details})


def per_step_task(step: Callable[..., Any], state: Any, batch: int, layout: Callable[[np.ndarray], np.ndarray]) -> Task:
    """Return a task of ``step(state, images, labels) -> (state, loss)``, compiled, and called once per batch.

    Args:
        step: The training step.
        state: The first state: the parameters of ``work.state_dict``, and then the rest.
        batch: Number of images per step.
        layout: Transposes normalised images ``[n, height, width, channels]`` to the step's order.
    """
    images, labels = work.digits(STEPS * batch)
    x = layout(work.normalised(images))
    batches = jax.device_put([(x[i : i + batch], labels[i : i + batch]) for i in range(0, len(x), batch)])
    num_params = count(state[0])
    compiled, compile_seconds = compile_timed(jax.jit(step, donate_argnums=0), state, *batches[0])
    losses, state = [], jax.tree.map(lambda leaf: leaf + 0, state)
    for _ in range(2):
        state, loss = compiled(state, *batches[0])
        losses.append(float(loss))
    details = {"num_params": num_params, "losses": losses, "compile_seconds": compile_seconds}
    return training_task(compiled, state, batches, len(x), **details)


def trace(run: Callable[[int], Any], folder: str) -> None:
    """Run once and write a profiler trace to a folder."""
    with jax.profiler.trace(folder):
        run(1)
