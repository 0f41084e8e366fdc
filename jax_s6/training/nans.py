"""Where a run first went wrong, for ``--check-nans``: the epoch is trained again, step by step."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr

from jax_s6.config import Hyperparameters
from jax_s6.errors import InputError
from jax_s6.training import step as steps
from jax_s6.training.epoch import EpochMetrics, Split, epoch_order
from jax_s6.training.state import Keys, Program, TrainState

_LAYERS = ("conv_0", "norm_0", "conv_1", "norm_1")


class Wrong(NamedTuple):
    """The first step, from 0, that made a number that is not finite, and the first tensor that has one."""

    step: int
    tensor: str


def check_epoch(
    program: Program,
    hyper: Hyperparameters,
    before: TrainState,
    train: Split,
    epoch: int,
    metrics: EpochMetrics,
) -> None:
    """Raises InputError that names step and tensor if an epoch's losses are not all finite.

    Args:
        program: The static part.
        hyper: The only lane's numbers, ``[1]`` each.
        before: Its state before the epoch, arrays ``[1, ...]`` on the host.
        train: The training images.
        epoch: From 0.
        metrics: What the epoch brought.
    """
    if all(np.isfinite(sums.loss).all() for sums in metrics if sums is not None):
        return
    hyper, before = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[0]), (hyper, before))
    wrong = first_wrong(program, hyper, before, Split(*(np.asarray(x) for x in train)), epoch)
    where = "while it was judged" if wrong is None else f"at step {wrong.step}, first in {wrong.tensor}"
    raise InputError(
        f"the loss is not finite after epoch {epoch + 1}: it went wrong {where}; a lower --learning-rate may help"
    )


def first_wrong(program: Program, hyper: Hyperparameters, state: TrainState, train: Split, epoch: int) -> Wrong | None:
    """Trains one lane's epoch on one device until a number is not finite.

    Args:
        program: The static part.
        hyper: The lane's numbers, scalars.
        state: Its state before the epoch.
        train: The training images.
        epoch: From 0.

    Returns:
        Where; None if all numbers stayed finite.
    """
    program = dataclasses.replace(program, axis_name=None)
    keys, shape = Keys.of(hyper.seed), (program.steps_per_epoch, program.config.batch_size)
    order = np.asarray(epoch_order(keys.order, epoch, program.num_train, shape[0] * shape[1])).reshape(shape)
    for indices in order:
        images, labels = train.images[indices], train.labels[indices]
        new, finite = _step(program, hyper, keys, state, images, labels)
        # In alphabetical order, which is the step's: batch_stats, loss, then opt_state from the gradients, then params.
        wrong = [keystr(p, simple=True, separator=".") for p, ok in _leaves(finite) if not ok]
        if wrong:
            name = wrong[0] if wrong[0] != "loss" else _first_activation(program, state, images) or "loss"
            return Wrong(int(state.step), name)
        state = new
    return None


@functools.partial(jax.jit, static_argnums=0)
def _step(
    program: Program, hyper: Hyperparameters, keys: Keys, state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[TrainState, Any]:
    """Takes a step; tells of each tensor of the new state, and of the loss, whether all of it is finite."""
    new, metrics = steps.train_step(program, hyper, keys, state, images, labels)
    return new, jax.tree.map(lambda x: jnp.isfinite(x).all(), {"loss": metrics.loss, **new._asdict()})


def _first_activation(program: Program, state: TrainState, images: np.ndarray) -> str | None:
    """Names the first layer whose output is not finite, of the images without augmentation and dropout."""

    @jax.jit
    def finite(variables: Any) -> Any:
        keep = ["batch_stats", "intermediates"]
        _, captured = program.net().apply(variables, images, train=True, mutable=keep, capture_intermediates=True)  # pyright: ignore[reportGeneralTypeIssues]
        return jax.tree.map(lambda x: jnp.isfinite(x).all(), dict(captured)["intermediates"])

    outputs = _leaves(finite({"params": state.params, "batch_stats": state.batch_stats}))
    wrong = [
        keystr(path, simple=True, separator=".").partition("__call__")[0].strip(".") for path, ok in outputs if not ok
    ]
    wrong.sort(key=_place)
    return f"the output of {wrong[0] or 'the network'}" if wrong else None


def _place(name: str) -> tuple[str, int]:
    """Sorts layers as they follow each other: conv1.conv_0, conv1.norm_0, ..., a block after its layers, then all."""
    block, _, layer = name.partition(".")
    return block or "whole", _LAYERS.index(layer) if layer in _LAYERS else len(_LAYERS)


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)
