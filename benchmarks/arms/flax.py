"""The network as Flax's MNIST example is written: nn.Conv on images in the order NHWC, and Optax."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.arms import work
from benchmarks.arms.jax_tools import compile_timed, count, per_step_task, training_task
from benchmarks.worker import Task
from jax_s6.network import weights


class Block(nn.Module):
    """Two convolutions, the second of stride 2."""

    pool: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for index, stride in enumerate((1, 2)):
            x = nn.relu(nn.Conv(16, (3, 3), stride, padding=1, dtype=self.dtype, name=f"conv_{index}")(x))
            x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name=f"norm_{index}")(x)
        return nn.max_pool(x, (2, 2), (2, 2)) if self.pool else x


class Net(nn.Module):
    """Compute logits ``[batch, 16]`` of normalised images ``[batch, 28, 28, 1]``. Variables are named as jax_s6's.

    Attributes:
        dtype: The type of the activations; None: float32.
    """

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for number in (1, 2, 3):
            x = Block(number < 3, self.dtype, name=f"conv{number}")(x, train)
        return x.astype(jnp.float32).mean((1, 2))


OPTIMIZER = optax.sgd(work.LEARNING_RATE, work.MOMENTUM)


def initial_state() -> Any:
    """Return the parameters, the running statistics, and the optimizer's state."""
    variables = jax.tree.map(jnp.asarray, weights.from_torch_state_dict(work.state_dict()))
    return variables["params"], variables["batch_stats"], OPTIMIZER.init(variables["params"])


def step(state: Any, x: jax.Array, y: jax.Array, dtype: Any = None) -> tuple[Any, jax.Array]:
    """Take a step of SGD with momentum; return the new state and the loss before the step."""
    params, batch_stats, opt_state = state

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = Net(dtype).apply(variables, x, True, mutable=["batch_stats"])
        loss = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), y).mean()
        return loss, updates["batch_stats"]

    (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, opt_state = OPTIMIZER.update(grads, opt_state)
    return (optax.apply_updates(params, updates), batch_stats, opt_state), loss


def train_step(*, batch: int) -> Task:
    """Call a compiled step from Python."""
    return per_step_task(step, initial_state(), batch, lambda x: x)


def train_scan(*, batch: int) -> Task:
    """Run the same step in a ``lax.scan``."""
    steps = 3 if jax.default_backend() == "cpu" else work.steps(batch, "gpu")
    return scan_task(step, initial_state(), batch, steps, 1)


def sweep(*, lanes: int, batch: int = 64) -> Task:
    """Run ``vmap`` of the step over lanes in a scan. XLA turns its convolutions into grouped ones."""
    steps = 2 if jax.default_backend() == "cpu" else 64
    state = jax.tree.map(lambda x: jnp.stack([x] * lanes), initial_state())
    return scan_task(jax.vmap(step, in_axes=(0, None, None)), state, batch, steps, lanes)


def scan_task(step: Any, state: Any, batch: int, steps: int, lanes: int) -> Task:
    """Return a task of a compiled scan over batches. The first two batches are equal, for the losses to check."""
    images, labels = work.digits(steps * batch)
    x, y = work.normalised(images).reshape(steps, batch, 28, 28, 1), labels.reshape(steps, batch)
    x[1], y[1] = x[0], y[0]
    data = jax.device_put((x, y))
    scan = jax.jit(lambda state, data: jax.lax.scan(lambda s, pair: step(s, *pair), state, data), donate_argnums=0)
    compiled, compile_seconds = compile_timed(scan, state, data)
    num_params = count(state[0]) // lanes
    state, losses = compiled(state, data)
    losses = [work.furthest_from_median(row) for row in np.asarray(losses).reshape(steps, -1)[:2]]
    details = {"num_params": num_params, "losses": losses, "compile_seconds": compile_seconds}
    return training_task(compiled, state, [(data,)], lanes * steps * batch, **details)
