"""A single run and a lane of a sweep with the same settings end in the same parameters, whoever computes a chunk."""

import dataclasses

import jax
import numpy as np

from jax_s6.config import RECIPES
from jax_s6.settings import replace
from jax_s6.sweep import sweep
from jax_s6.train import train
from jax_s6.train.run import make_run


def test_train_with_default_flags_is_bit_for_bit_a_lane_of_a_sweep(bars):
    """Two of the four devices share the batches of the run; each lane of the sweep has one device."""
    config = dataclasses.replace(RECIPES["best"], num_epochs=2)
    assert config.batch_size == 128 and make_run(config, bars).trainers[0].batch_parts == 2
    alone = train(config, bars)
    lanes = sweep(replace(config, {"seed": 1}), {"seed": (1, 0)}, bars, devices=jax.devices()[:2])
    assert lanes.summary["groups"][0]["batch_split_over"] == 1
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y), lanes.variables, alone.variables)
    assert lanes.rows[1]["train_loss"] == alone.summary["train_loss"]
