"""The network in plain ``lax.conv``, in the order NCHW. In float64 it is the reference for the losses of all arms."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.arms import work
from benchmarks.arms.jax_tools import per_step_task
from benchmarks.worker import Task


def forward(params: dict[str, jax.Array], x: jax.Array, train: bool = True) -> jax.Array:
    """Compute logits ``[batch, 16]`` of normalised images ``[batch, 1, 28, 28]``.

    Batch normalisation uses the batch's statistics, or else the initial running ones: means of 0 and variances of 1.
    """

    def per_channel(name: str) -> jax.Array:
        return params[name][None, :, None, None]

    for number, layer in enumerate(work.LAYERS):
        block, part = number // 2 + 1, number % 2
        with jax.named_scope(f"conv{block}/conv_{part}"):  # the names of Flax's modules, for profiles and estimates
            strides, padding, dims = (layer.stride,) * 2, ((1, 1),) * 2, ("NCHW", "OIHW", "NCHW")
            x = jax.lax.conv_general_dilated(x, params[f"{layer.name}.weight"], strides, padding, None, None, dims)
            x = jax.nn.relu(x + per_channel(f"{layer.name}.bias"))
        with jax.named_scope(f"conv{block}/norm_{part}"):
            if train:
                mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            else:
                mean, variance = jnp.zeros_like(x[:1, :, :1, :1]), jnp.ones_like(x[:1, :, :1, :1])
            x = (x - mean) * jax.lax.rsqrt(variance + 1e-5)
            x = x * per_channel(f"{layer.norm}.weight") + per_channel(f"{layer.norm}.bias")
        if layer.pool:
            with jax.named_scope(f"conv{block}"):
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.mean((2, 3))


def loss_fn(params: dict[str, jax.Array], x: jax.Array, y: jax.Array, train: bool = True) -> jax.Array:
    """Compute the mean cross-entropy over the 16 outputs."""
    return -jnp.take_along_axis(jax.nn.log_softmax(forward(params, x, train)), y[:, None], axis=1).mean()


def step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
    """Take a step of SGD with momentum; return the new state and the loss before the step."""
    params, velocity = state
    loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
    velocity = jax.tree.map(lambda v, g: work.MOMENTUM * v + g, velocity, grads)
    return (jax.tree.map(lambda p, v: p - work.LEARNING_RATE * v, params, velocity), velocity), loss


def initial_state(dtype: Any = jnp.float32) -> Any:
    """Return the initial parameters, and velocities of 0."""
    params = {name: jnp.asarray(x, dtype) for name, x in work.state_dict().items() if "running" not in name}
    return params, jax.tree.map(jnp.zeros_like, params)


def train_step(*, batch: int) -> Task:
    """Call a compiled step from Python."""
    return per_step_task(step, initial_state(), batch, lambda x: x.transpose(0, 3, 1, 2))


def reference(*, batch: int, kind: str) -> Task:
    """Compute the losses that every arm must have; ``kind`` is train or predict. JAX_ENABLE_X64 must be set."""
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
