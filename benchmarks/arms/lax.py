"""The network in plain ``lax.conv``, NCHW, without a library; in float64 it is the reference for every arm's loss."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.arms import work
from benchmarks.arms.jax_tools import per_step_task
from benchmarks.worker import Task


def forward(params: dict[str, jax.Array], x: jax.Array, train: bool = True) -> jax.Array:
    """Maps normalised images ``[batch, 1, 28, 28]`` to logits ``[batch, 16]``.

    Batch normalisation goes by the batch, or else by the initial running statistics, means of 0 and variances of 1.
    """
    for name in work.IN_CHANNELS:
        stride = 2 if name.endswith("3") else 1
        dims = ("NCHW", "OIHW", "NCHW")
        x = jax.lax.conv_general_dilated(x, params[f"{name}.weight"], (stride,) * 2, ((1, 1),) * 2, None, None, dims)
        x = jax.nn.relu(x + params[f"{name}.bias"][None, :, None, None])
        norm = f"{name[:-1]}{int(name[-1]) + 2}"
        if train:
            mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        else:
            mean, variance = jnp.zeros_like(x[:1, :, :1, :1]), jnp.ones_like(x[:1, :, :1, :1])
        x = (x - mean) * jax.lax.rsqrt(variance + 1e-5)
        x = x * params[f"{norm}.weight"][None, :, None, None] + params[f"{norm}.bias"][None, :, None, None]
        if name in ("conv1.3", "conv2.3"):
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.mean((2, 3))


def loss_fn(params: dict[str, jax.Array], x: jax.Array, y: jax.Array, train: bool = True) -> jax.Array:
    """The mean cross-entropy over the 16 outputs."""
    return -jnp.take_along_axis(jax.nn.log_softmax(forward(params, x, train)), y[:, None], axis=1).mean()


def step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
    """Takes a step of SGD with momentum."""
    params, velocity = state
    loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
    velocity = jax.tree.map(lambda v, g: work.MOMENTUM * v + g, velocity, grads)
    return (jax.tree.map(lambda p, v: p - work.LEARNING_RATE * v, params, velocity), velocity), loss


def initial_state(dtype: Any = jnp.float32) -> Any:
    """Weights and no velocity."""
    params = {name: jnp.asarray(x, dtype) for name, x in work.state_dict().items() if "running" not in name}
    return params, jax.tree.map(jnp.zeros_like, params)


def train_step(*, batch: int) -> Task:
    """A compiled step, called from Python."""
    state = initial_state()
    return per_step_task(step, state, state[0], batch, lambda x: x.transpose(0, 3, 1, 2))


def reference(*, batch: int, kind: str) -> Task:
    """The losses that every arm must have, ``kind`` train or predict; 64-bit numbers must be switched on."""
    images, labels = work.digits(batch)
    x = jnp.asarray(((images.astype("float64") / 255 - work.MEAN) / work.STD).transpose(0, 3, 1, 2))
    assert x.dtype == jnp.float64
    state, y, losses = initial_state(jnp.float64), jnp.asarray(labels), []
    if kind == "predict":
        losses.append(float(jax.jit(loss_fn, static_argnums=3)(state[0], x, y, False)))
    for _ in range(2 if kind == "train" else 0):
        state, loss = jax.jit(step)(state, x, y)
        losses.append(float(loss))
    return Task(lambda n: None, 0, losses=losses, repeatable=False)
