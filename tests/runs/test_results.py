"""What every finished run leaves: weights in the order of the lanes, settings, and the common part of summaries."""

import json

import jax
import numpy as np
import pytest

from jax_s6.cli import read_config
from jax_s6.network import weights
from jax_s6.runs.results import common_summary, images_per_second, join_variables, write_network, write_summary
from jax_s6.training.lanes import state_shapes
from tests.small_runs import CONFIG, lane, make_small_run


@pytest.fixture
def run(bars):
    """Two groups whose lanes alternate; each lane's arrays hold its number."""
    run = make_small_run(bars, {"seed": (0, 1, 2), "num_epochs": (2, 3)})
    for trainer in run.trainers:
        lanes, shapes = trainer.group.lanes, state_shapes(run.plan, trainer.group)
        trainer.state = jax.tree.map(
            lambda x, lanes=lanes: np.stack([np.full(x.shape, number, x.dtype) for number in lanes]), shapes
        )
    return run


def test_weights_are_in_the_order_of_the_lanes(run):
    assert [trainer.group.lanes.tolist() for trainer in run.trainers] == [[0, 2, 4], [1, 3, 5]]
    variables = join_variables(run)
    assert set(variables) == {"params", "batch_stats"}
    for leaf in jax.tree.leaves(variables):
        assert [np.unique(part).tolist() for part in leaf] == [[0], [1], [2], [3], [4], [5]]


def test_one_lane_is_written_with_its_settings(run, tmp_path):
    variables = lane(join_variables(run), 3)
    write_network(tmp_path, CONFIG, variables, {"lane": "3"})
    assert read_config(tmp_path / "config.json") == CONFIG
    jax.tree.map(np.testing.assert_array_equal, weights.load(tmp_path / "params.safetensors"), variables)


def test_speed_is_that_of_all_lanes_and_groups(run):
    assert images_per_second(run) is None, "nothing was trained"
    for trainer, seconds in zip(run.trainers, ([1.0, 2.0], [1.0]), strict=True):
        trainer.epoch_seconds, trainer.lane_epochs = seconds, 5
    assert images_per_second(run) == 2 * 5 * 12 * 32 / 4.0  # 12 whole batches of 32 in 400 images
    summary = common_summary(run)
    assert summary["train_seconds"] == 4.0 and summary["num_params"] == 11_952 and summary["data_checksum"] == "bars"


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    write_summary(tmp_path, {"loss": float("nan"), "lanes": [{"loss": np.float64("inf")}, {"loss": 1.5}]})
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"loss": None, "lanes": [{"loss": None}, {"loss": 1.5}]}
