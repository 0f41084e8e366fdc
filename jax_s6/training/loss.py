"""The loss of a batch and its gradient: of one lane, or of many lanes side by side where the program is packed.

Everything else of training is written for one lane, and ``vmap`` makes it a function of many. Here ``vmap`` meets a
rule of its own: it hands the lanes to ``network.packed`` together.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Key, UInt8

from jax_s6 import backend
from jax_s6.config import Hyperparameters
from jax_s6.network import packed
from jax_s6.network.chunks import num_devices, sum_over_chunks
from jax_s6.training.state import Program

Images = UInt8[Array, "batch height width 1"]
Labels = Int32[Array, " batch"]


def cross_entropy(
    logits: Float[Array, "batch outputs"], labels: Labels, num_classes: int, smoothing: float | Float[Array, ""]
) -> Float[Array, " batch"]:
    """Compute each image's cross-entropy over all outputs, with a target that is smoothed over the classes.

    Args:
        logits: The network's outputs.
        labels: In ``[0, num_classes)``.
        num_classes: The number of classes, at most that of the outputs.
        smoothing: The target is ``1 - smoothing`` on the label plus ``smoothing / num_classes`` on each class.
    """
    log_probs = jax.nn.log_softmax(logits)
    is_label = jax.nn.one_hot(labels, log_probs.shape[1], dtype=bool)
    nll = -jnp.where(is_label, log_probs, 0.0).sum(1)  # a gather's gradient would be a scatter
    return (1 - smoothing) * nll - smoothing * log_probs[:, :num_classes].mean(1)


def loss_fn(
    params: Any,
    batch_stats: Any,
    program: Program,
    hyper: Hyperparameters,
    images: Images | Float32[Array, "batch height width 1"],
    labels: Labels,
    dropout_keys: Key[Array, " batch"] | None,
) -> tuple[Float32[Array, ""], tuple[Any, Float32[Array, "2"]]]:
    """Compute this device's share of the batch's mean loss, from its part of the batch.

    Args:
        params: The parameters.
        batch_stats: The running statistics before the step.
        program: The static part.
        hyper: The lane's hyperparameters.
        images: Pixels in ``[0, 255]``.
        labels: The labels.
        dropout_keys: One key per image; None: no dropout.

    Returns:
        The share, whose sum over the devices is the mean loss. Then the new statistics, and the part's sums of losses
        and of correct predictions.
    """
    network = program.net(num_devices(program.axis_name))
    logits, updates = network.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        dropout_rates=(hyper.dropout_conv1, hyper.dropout_conv2, hyper.dropout_conv3),
        dropout_keys=dropout_keys,
        mutable=["batch_stats"],
    )
    parts = zip(jnp.split(logits, network.num_chunks), jnp.split(labels, network.num_chunks), strict=True)
    sums = sum_over_chunks([_loss_and_correct(*part, program.num_classes, hyper.label_smoothing) for part in parts])
    return sums[0] / program.config.batch_size, (updates["batch_stats"], sums)


def _loss_and_correct(
    logits: Float[Array, "batch outputs"], labels: Labels, num_classes: int, smoothing: Any
) -> Float[Array, "2"]:
    """Sum the losses and count the correct predictions of a chunk."""
    losses = cross_entropy(logits, labels, num_classes, smoothing)
    return jnp.stack([losses.sum(), (logits.argmax(1) == labels).sum(dtype=losses.dtype)])


def loss_gradients(
    program: Program,
    params: Any,
    batch_stats: Any,
    hyper: Hyperparameters,
    images: Images | Float32[Array, "batch height width 1"],
    labels: Labels,
    dropout_keys: Key[Array, " batch"] | None,
) -> tuple[Any, Any, Float32[Array, "2"]]:
    """Differentiate ``loss_fn``; return the gradient, the new statistics, and the sums of ``loss_fn``."""

    def alone(params: Any, batch_stats: Any, *rest: Any) -> tuple[Any, Any, jax.Array]:
        loss = functools.partial(jax.grad(loss_fn, has_aux=True), params, batch_stats, program)
        grads, (batch_stats, sums) = loss(*rest)
        return grads, batch_stats, sums

    together = functools.partial(_packed_gradients, program)
    function = _for_lanes(program, alone, together) if program.is_packed else alone
    return function(params, batch_stats, hyper, images, labels, dropout_keys)


def eval_logits(program: Program, variables: Any, images: Images) -> Float32[Array, "batch outputs"]:
    """Compute logits with the running statistics."""

    def alone(variables: Any, images: Images) -> Any:
        return program.net().apply(variables, images, train=False)

    together = functools.partial(_packed_logits, program)
    return (_for_lanes(program, alone, together) if program.is_packed else alone)(variables, images)


def _packed_gradients(
    program: Program, params: Any, batch_stats: Any, hyper: Hyperparameters, images: Any, labels: Any, keys: Any
) -> tuple[Any, Any, Float32[Array, "lanes 2"]]:
    """Do for several lanes what ``loss_gradients`` does for one. The lanes' losses are added: they share nothing."""
    rates = (hyper.dropout_conv1, hyper.dropout_conv2, hyper.dropout_conv3)

    def loss(params: Any) -> tuple[Float32[Array, ""], tuple[Any, Float32[Array, "lanes 2"]]]:
        variables = {"params": params, "batch_stats": batch_stats}
        packing = _packing(program, images)
        options = {"train": True, "dropout_rates": rates, "dropout_keys": keys}
        logits, stats = packed.apply(variables, images, packing, **options)
        each = functools.partial(_loss_and_correct, num_classes=program.num_classes)
        sums = jax.vmap(lambda *lane: each(*lane[:2], smoothing=lane[2]))(logits, labels, hyper.label_smoothing)
        return sums[:, 0].sum() / program.config.batch_size, (stats, sums)

    grads, (stats, sums) = jax.grad(loss, has_aux=True)(params)
    return grads, stats, sums


def _packed_logits(program: Program, variables: Any, images: Any) -> Float32[Array, "lanes batch outputs"]:
    return packed.apply(variables, images, _packing(program, images), train=False)[0]


def _packing(program: Program, images: Any) -> packed.Packing:
    dtype = backend.operand_dtype(program.config, program.platform)
    return packed.Packing(len(images), dtype, program.axis_name, -(-len(images) // packed.MOST))


def _for_lanes(program: Program, alone: Callable, together: Callable) -> Callable:
    """Return a function of one lane, ``alone``, that ``vmap`` computes by ``together``, a function of several lanes."""

    @jax.custom_batching.custom_vmap
    def of_lane(*arguments: Any) -> Any:
        return alone(*arguments)

    @of_lane.def_vmap
    def of_lanes(size: int, batched: Any, *arguments: Any) -> Any:
        def with_lanes(x: jax.Array, has_lanes: bool) -> jax.Array:
            return x if has_lanes else jnp.broadcast_to(x, (size, *x.shape))

        arguments = jax.tree.map(with_lanes, arguments, tuple(batched))
        results = _in_groups(program, together, size, arguments)
        return results, jax.tree.map(lambda _: True, results)

    return of_lane


def _in_groups(program: Program, together: Callable, size: int, arguments: Any) -> Any:
    """Call ``together`` for groups of at most ``MOST`` lanes; on GPU, for all. The first lanes fill the last group."""
    groups = -(-size // packed.MOST)
    each = -(-size // groups)
    if each * groups != size:
        arguments = jax.tree.map(lambda x: x[jnp.arange(each * groups) % size], arguments)
    if groups == 1 or backend.few_operations(program.platform):
        return jax.tree.map(lambda x: x[:size], together(*arguments))
    arguments = jax.tree.map(lambda x: x.reshape(groups, each, *x.shape[1:]), arguments)
    results = jax.lax.map(lambda group: together(*group), arguments)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], results)
