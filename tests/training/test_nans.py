"""--check-nans names the first step and tensor that went wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6.config import Hyperparameters, StaticSettings
from jax_s6.errors import InputError
from jax_s6.settings import replace
from jax_s6.train import train
from jax_s6.training import nans
from jax_s6.training.epoch import Split
from jax_s6.training.state import Program, create_train_state
from tests.small_runs import CONFIG, DECAYING


@pytest.fixture(scope="module")
def lane(bars):
    num_train = len(bars.train_labels) - CONFIG.data.holdout
    program = Program(StaticSettings.of(CONFIG), num_train)
    hyper = jax.tree.map(jnp.float32, Hyperparameters.of(CONFIG))._replace(seed=jnp.uint32(0))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: create_train_state(program, hyper))
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)._replace(diverged_at=np.int32(-1))
    state = state._replace(params=jax.tree.map(lambda x: random.normal(0, 0.1, x.shape).astype(x.dtype), state.params))
    return program, hyper, state, Split(bars.train_images[:num_train], bars.train_labels[:num_train])


def test_nothing_wrong_is_none(lane):
    assert nans.first_wrong(*lane, 0) is None


def poison(tree, *path):
    """Makes one number of one leaf NaN."""
    name, *rest = path
    if rest:
        return {**tree, name: poison(tree[name], *rest)}
    leaf = tree[name].copy()
    leaf.flat[0] = np.nan
    return {**tree, name: leaf}


def test_step_and_first_layer_of_many_are_named(lane):
    program, hyper, state, images = lane
    state = state._replace(params=poison(state.params, "conv2", "conv_1", "bias"), step=np.int32(7))
    assert nans.first_wrong(program, hyper, state, images, 0) == (7, "the output of conv2.conv_1")


@pytest.mark.parametrize(("layer", "tensor"), [("conv_1", "bias"), ("norm_0", "scale")])
def test_first_layer_is_named_where_a_batch_is_computed_in_chunks(lane, layer, tensor):
    program, _, state, (images, _) = lane
    program = dataclasses.replace(program, config=program.config._replace(batch_size=128))
    state = state._replace(params=poison(state.params, "conv1", layer, tensor))
    assert nans._first_output(program, state, images[:128]) == f"the output of conv1.{layer}"


def test_statistics_that_overflow_before_the_loss_are_named(lane):
    program, hyper, state, images = lane
    state = state._replace(batch_stats=poison(state.batch_stats, "conv1", "norm_0", "mean"))
    assert nans.first_wrong(program, hyper, state, images, 0) == (0, "batch_stats.conv1.norm_0.mean")


@pytest.mark.usefixtures("shared_programs")
def test_run_ends_with_step_and_tensor(bars):
    config = replace(DECAYING, {"learning_rate": 1e6})
    frozen = train(config, bars)
    step = frozen.summary["diverged_at"]
    assert step is not None and np.isnan(frozen.history[-1]["train_loss"])
    with pytest.raises(InputError, match=r"at step \d+, first in .*; a lower --learning-rate may help") as caught:
        train(config, bars, check_nans=True)
    named = int(str(caught.value).partition("at step ")[2].partition(",")[0])
    assert named <= step, "the step that made the loss wrong is the one named, or an earlier one"
