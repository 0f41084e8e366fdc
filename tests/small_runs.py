"""Small runs on the bars, for the tests of several packages."""

import dataclasses

import jax
import numpy as np

from jax_s6.config import RECIPES, AugmentConfig, DataConfig, ModelConfig
from jax_s6.runs.engine import Listener, Run
from jax_s6.runs.results import join_variables
from jax_s6.settings import replace
from jax_s6.training.plan import make_plan

# Without dropout and augmentation, whose compilation takes more than half of the time.
CONFIG = dataclasses.replace(
    RECIPES["best"],
    batch_size=32,
    num_epochs=3,
    data=DataConfig(holdout=100),
    model=ModelConfig(),
    augment=AugmentConfig(),
)
RATES = {"learning_rate": (0.01, 0.02, 0.03, 0.05, 0.1)}
# A rate of 1e6 diverges: each step multiplies the kernels by about -1e6.
DECAYING = replace(CONFIG, {"weight_decay": 1.0, "initial_fraction": 1.0})
DECAYING_GRID = {"learning_rate": (0.002, 0.004, 1e6), "seed": (0,)}


class Heard(Listener):
    """Keeps what a run reports."""

    def __init__(self):
        self.epochs, self.sentences, self.lane_epochs = [], [], 0

    def lanes_done(self, count, images_per_second):
        self.lane_epochs += count

    def epoch_done(self, run, number, num_lanes, images_per_second):
        self.epochs.append((number, run.trainers[number].epoch, num_lanes))

    def notified(self, text):
        self.sentences.append(text)


def make_small_run(dataset, grid=None, config=CONFIG, *, devices=None, prune=False) -> Run:
    """Makes a run on two devices."""
    return Run(make_plan(config, grid or {}), dataset, devices=devices or jax.devices()[:2], prune=prune)


def lane(tree, index):
    """Takes one lane out of arrays ``[lanes, ...]``."""
    return jax.tree.map(lambda x: x[index], tree)


def assert_same_trees(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def assert_same_lane(got: Run, want: Run, index: int):
    """Compares all results of a lane, bit for bit; both runs may have other lanes as well."""
    for name in want.records.metrics:
        values = (run.records.metrics[name][index] for run in (got, want))
        np.testing.assert_array_equal(*values, err_msg=name)
    for name in ("epochs", "diverged_at", "pruned_at"):
        assert getattr(got.records, name)[index] == getattr(want.records, name)[index], name
    assert_same_trees(lane(join_variables(got), index), lane(join_variables(want), index))


def assert_same_runs(got: Run, want: Run):
    """Compares the results of all lanes, bit for bit."""
    assert got.plan.num_lanes == want.plan.num_lanes
    for index in range(want.plan.num_lanes):
        assert_same_lane(got, want, index)
