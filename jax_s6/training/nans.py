"""Finds where a run produced its first number that is not finite, for ``--check-nans``.

The epoch whose loss is not finite is trained again, step by step.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr
from jax.typing import ArrayLike
from jaxtyping import Array, Int32, UInt8

from jax_s6.config import Hyperparameters, TrainConfig
from jax_s6.errors import InputError
from jax_s6.training.epoch import Split, epoch_order
from jax_s6.training.state import Keys, Program, TrainState
from jax_s6.training.step import train_step

_LAYERS = ("conv_0", "norm_0", "conv_1", "norm_1")
Images = UInt8[Array, "batch height width 1"]
Labels = Int32[Array, " batch"]


class Wrong(NamedTuple):
    """The first step, from 0, with a number that is not finite, and the first tensor that holds one."""

    step: int
    tensor: str


def explain(program: Program, config: TrainConfig, before: TrainState, train: Split, epoch: int) -> NoReturn:
    """Raise InputError, which names the first step and tensor of an epoch that were not finite.

    Args:
        program: The static part.
        config: The settings of the only lane.
        before: The lane's state before the epoch, arrays ``[1, ...]`` on the host.
        train: The training images.
        epoch: The epoch's number, from 0.
    """
    hyper = Hyperparameters.of(config)
    hyper = jax.tree.map(jnp.float32, hyper)._replace(seed=jnp.uint32(hyper.seed))
    state = jax.tree.map(lambda x: jnp.asarray(x[0]), before)
    wrong = first_wrong(program, hyper, state, train, epoch)
    where = "during evaluation" if wrong is None else f"at step {wrong.step}, first in {wrong.tensor}"
    raise InputError(
        f"the loss is not finite after epoch {epoch + 1}: it went wrong {where}; a lower --learning-rate may help"
    )


def first_wrong(program: Program, hyper: Hyperparameters, state: TrainState, train: Split, epoch: int) -> Wrong | None:
    """Train one lane on one device for an epoch, until a number is not finite.

    Args:
        program: The static part.
        hyper: The lane's numbers, scalars.
        state: The lane's state before the epoch.
        train: The training images, NumPy arrays.
        epoch: The epoch's number, from 0.

    Returns:
        The step and the tensor; None if all numbers stayed finite.
    """
    program = dataclasses.replace(program, axis_name=None)
    keys, shape = Keys.of(hyper.seed), (program.steps_per_epoch, program.config.batch_size)
    order = np.asarray(epoch_order(keys.order, epoch, program.num_train, shape[0] * shape[1])).reshape(shape)
    for indices in order:
        images, labels = train.images[indices], train.labels[indices]
        new, finite = _step(program, hyper, keys, state, images, labels)
        # In alphabetical order, which is the step's: batch_stats, loss, then opt_state from the gradients, then params.
        wrong = [keystr(path, simple=True, separator=".") for path, ok in _leaves(finite) if not ok]
        if wrong:
            name = wrong[0] if wrong[0] != "loss" else _first_output(program, state, images) or "loss"
            return Wrong(int(state.step), name)
        state = new
    return None


@functools.partial(jax.jit, static_argnums=0)
def _step(
    program: Program, hyper: Hyperparameters, keys: Keys, state: TrainState, images: Images, labels: Labels
) -> tuple[TrainState, Any]:
    """Take a step, and tell whether each tensor of the new state, and the loss, are finite."""
    new, metrics = train_step(program, hyper, keys, state, images, labels)
    return new, _all_finite({"loss": metrics.loss, **new._asdict()})


@functools.partial(jax.jit, static_argnums=0)
def _outputs(program: Program, variables: Any, images: Images) -> Any:
    """Tell whether each layer's outputs are finite, without augmentation and dropout."""
    keep = ["batch_stats", "intermediates"]
    _, captured = program.net().apply(variables, images, train=True, mutable=keep, capture_intermediates=True)  # pyright: ignore[reportGeneralTypeIssues]
    return _all_finite(dict(captured)["intermediates"])


def _first_output(program: Program, state: TrainState, images: ArrayLike) -> str | None:
    """Name the first layer whose output is not finite."""
    outputs = _leaves(_outputs(program, {"params": state.params, "batch_stats": state.batch_stats}, images))
    names = [keystr(path, simple=True, separator=".").partition("__call__")[0] for path, ok in outputs if not ok]
    wrong = sorted((name.strip(".") for name in names), key=_place)
    return f"the output of {wrong[0] or 'the network'}" if wrong else None


def _place(name: str) -> tuple[str, int]:
    """Return a key that sorts layers by their order, a block after its layers, and the network last."""
    block, _, layer = name.partition(".")
    return block or "network", _LAYERS.index(layer) if layer in _LAYERS else len(_LAYERS)


def _all_finite(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), tree)


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)
