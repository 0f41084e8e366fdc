"""The results of all lanes: what is kept per epoch, which lane is best, and what a checkpoint holds."""

import dataclasses

import numpy as np
import pytest

from jax_s6.config import DataConfig
from jax_s6.runs.records import Records
from jax_s6.training.plan import make_plan
from tests.small_runs import CONFIG, RATES

PLAN = make_plan(CONFIG, RATES)
LANES = np.arange(5)


def add(records, epoch, accuracies, lanes=LANES):
    values = {name: np.full(len(lanes), float(epoch)) for name in records.metrics}
    records.add_epoch(lanes, epoch, {**values, records.score: np.array(accuracies)})


@pytest.fixture
def records():
    records = Records(PLAN)
    add(records, 1, [0.1, 0.2, 0.3, 0.4, 0.5])
    add(records, 2, [0.5, 0.6], LANES[:2])
    return records


def test_history_has_the_epochs_of_each_lane(records):
    assert records.epochs.tolist() == [2, 2, 1, 1, 1]
    assert [row["epoch"] for row in records.history(0)] == [1, 2] and len(records.history(4)) == 1
    assert [row["validation_accuracy"] for row in records.history(1)] == [0.2, 0.6]
    assert all(type(value) in (int, float) for value in records.history(0)[0].values()), "plain values, for JSON"


def test_held_out_images_rank_the_lanes_and_test_images_where_there_are_none():
    assert Records(PLAN).score == "validation_accuracy"
    without = Records(make_plan(dataclasses.replace(CONFIG, data=DataConfig()), RATES))
    assert without.score == "test_accuracy" and not any("validation" in name for name in without.metrics)


def test_the_last_epoch_of_each_lane_counts_and_diverged_lanes_are_last(records):
    assert records.ranking(LANES).tolist() == [1, 4, 0, 3, 2]
    assert records.ranking(np.array([3, 0])).tolist() == [0, 3]
    records.diverged_at[1] = 7
    assert records.ranking(LANES).tolist() == [4, 0, 3, 2, 1]


def test_best_lane_is_one_that_was_not_dropped_and_that_has_results(records):
    records.pruned_at[1] = 1
    assert records.best_lane() == 4
    records = Records(PLAN)
    add(records, 1, [0.1], LANES[2:3])
    assert records.best_lane() == 2


def test_diverged_lane_repeats_its_evaluation_and_has_no_training_results(records):
    records.repeat_epoch(LANES[:1], 3)
    row = records.history(0)[2]
    assert np.isnan([row["train_loss"], row["train_accuracy"], row["train_gradient_norm"]]).all()
    assert row["validation_accuracy"] == 0.5 and row["test_loss"] == 2.0


def test_checkpoints_of_some_lanes_restore_them_alone(records):
    records.diverged_at[1] = 9
    copy, lanes = Records(PLAN), np.array([1, 3])
    copy.from_arrays(lanes, records.to_arrays(lanes))
    assert copy.epochs.tolist() == [0, 2, 0, 1, 0] and copy.diverged_at.tolist() == [-1, 9, -1, -1, -1]
    for name, values in records.metrics.items():
        np.testing.assert_array_equal(copy.metrics[name][lanes], values[lanes])
        assert np.isnan(copy.metrics[name][0]).all()
