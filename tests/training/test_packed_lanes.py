"""Training lanes side by side is training each alone: any number of them, on several devices, and if one diverges."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6.config import RECIPES, Hyperparameters, ModelConfig, StaticSettings
from jax_s6.network import packed
from jax_s6.training.epoch import Split
from jax_s6.training.state import Program
from jax_s6.training.trainer import Trainer, make_mesh

BATCH, STEPS = 32, 2
RATES = np.geomspace(0.01, 0.1, 9)  # two groups of five, of which the second is filled up


@pytest.fixture(scope="module")
def train():
    """``train(convolution, rates, devices)``: the lanes' states and metrics after a few steps, and the test metrics."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS * BATCH, 28, 28, 1), dtype=np.uint8)
    split = Split(images, rng.integers(0, 10, STEPS * BATCH, dtype=np.int32))

    def train(convolution, rates, num_devices=1):
        model = ModelConfig(convolution=convolution, dropout_conv1=0.1)
        config = dataclasses.replace(RECIPES["s6"], batch_size=BATCH, num_epochs=1, model=model)
        program = Program(StaticSettings.of(config), STEPS * BATCH)
        width = len(rates) if convolution == "packed" else 1
        trainer = Trainer(program, make_mesh(jax.devices()[:num_devices]), width)
        lanes = range(len(rates))
        numbers = Hyperparameters(*([value] * len(rates) for value in Hyperparameters.of(config)))
        hyper = trainer.put_lanes(numbers._replace(learning_rate=rates, seed=list(lanes)))
        data = trainer.put_shared(split)
        state, metrics = trainer.train(hyper, trainer.create(hyper), jnp.int32(0), data)
        return trainer.fetch((state, metrics, trainer.evaluate(state, [data])))

    return train


@pytest.fixture(scope="module")
def alone(train):
    return train("matmul", RATES)


def assert_close(got, want, lanes):
    """Compare each array by its norm: where rounding puts a number on the other side of a ReLU, single ones differ."""
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.linalg.norm(np.float64(x) - y[lanes]) <= 2e-2 * np.linalg.norm(np.float64(y[lanes]))


def test_packed_lanes_in_two_groups_are_each_lane_alone(train, alone):
    assert len(RATES) > packed.MOST
    assert_close(train("packed", RATES), alone, slice(None))


def test_a_lane_that_diverges_harms_no_lane_beside_it_on_devices_that_share_batches(train, alone):
    rates = RATES[:3].copy()
    rates[1] = 1e30
    state, metrics, evaluated = train("packed", rates, 2)
    assert state.diverged_at.tolist()[::2] == [-1, -1] and state.diverged_at[1] > 0
    for got, want in ((state, alone[0]), (metrics, alone[1]), (evaluated, alone[2])):
        others = jax.tree.map(lambda x: np.asarray(x)[[0, 2]], got)
        assert_close(others, want, [0, 2])
