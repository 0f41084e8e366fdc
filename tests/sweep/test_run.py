"""Sweeps from Python: their lanes, groups and rows, pruning, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jax_s6.config import DataConfig
from jax_s6.errors import InputError
from jax_s6.settings import replace
from jax_s6.sweep import sweep
from jax_s6.sweep.run import write_sweep
from jax_s6.train import train
from tests.small_runs import CONFIG, DECAYING, DECAYING_GRID, RATES, Heard, assert_same_trees, lane, make_small_run

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def two():
    return jax.devices()[:2]


@pytest.fixture(scope="module")
def whole(bars, two, shared_programs):
    """Five lanes on two devices: in the last chunk, one of the two lanes is only padding."""
    heard = Heard()
    return sweep(CONFIG, RATES, bars, devices=two, listener=heard), heard


def test_lane_equals_train_alone_bit_for_bit(bars, whole):
    result, _ = whole
    alone = train(replace(CONFIG, {"learning_rate": 0.1}), bars, num_devices=1)
    assert_same_trees(lane(result.variables, 4), alone.variables)
    row = result.rows[4]
    for name in ("train_loss", "test_loss", "test_accuracy", "best_test_accuracy", "validation_accuracy"):
        assert row[name] == alone.summary[name], name


def test_rows_history_and_progress_leave_padding_out(whole):
    result, heard = whole
    assert [row["lane"] for row in result.rows] == list(range(5))
    assert [row["learning_rate"] for row in result.rows] == [0.01, 0.02, 0.03, 0.05, 0.1]
    assert [(r["lane"], r["epoch"]) for r in result.history] == [(i, e) for i in range(5) for e in (1, 2, 3)]
    assert heard.lane_epochs == 15 and heard.epochs == [(0, 1, 5), (0, 2, 5), (0, 3, 5)]
    assert result.summary["groups"][0]["width"] == 1 and result.summary["devices"] == 2
    for row in result.rows:
        epochs = [r for r in result.history if r["lane"] == row["lane"]]
        assert row["best_test_accuracy"] == max(r["test_accuracy"] for r in epochs)
        assert row["test_loss"] == epochs[-1]["test_loss"]


def test_to_pandas_has_one_row_per_lane(whole):
    table = whole[0].to_pandas()
    assert table.index.tolist() == list(range(5)) and table.loc[3, "learning_rate"] == 0.05


def test_settings_that_shape_the_program_make_groups_whose_lanes_keep_their_numbers(bars, two, whole):
    grid = {"num_epochs": (2, 3), "learning_rate": (0.01, 0.05)}
    result = sweep(CONFIG, grid, bars, devices=two)
    assert [group["lanes"] for group in result.summary["groups"]] == [2, 2]
    assert [len([r for r in result.history if r["lane"] == i]) for i in range(4)] == [2, 2, 3, 3]
    for index, other in ((2, 0), (3, 3)):  # three epochs: the lanes of the other sweep
        assert_same_trees(lane(result.variables, index), lane(whole[0].variables, other))


def test_pruning_drops_the_worse_half_and_leaves_survivors_as_they_are(bars, two, whole):
    heard = Heard()
    result = sweep(CONFIG, RATES, bars, devices=two, prune=True, listener=heard)
    assert heard.lane_epochs == 5 + 3 + 2, "dropped lanes were trained"
    assert heard.sentences == ["after epoch 1: 2 of 5 lanes dropped", "after epoch 2: 1 of 3 lanes dropped"]
    at = [row["pruned_at"] for row in result.rows]
    assert (at.count(1), at.count(2), at.count(None)) == (2, 1, 2)
    first = [next(r for r in whole[0].history if r["lane"] == i and r["epoch"] == 1) for i in range(5)]
    ranked = sorted(range(5), key=lambda i: (-first[i]["validation_accuracy"], first[i]["validation_loss"]))
    assert {i for i in range(5) if at[i] == 1} == set(ranked[3:]), "not the worst two of the held-out images"
    for index in (i for i in range(5) if at[i] is None):
        assert_same_trees(lane(result.variables, index), lane(whole[0].variables, index))
    assert result.summary["best_lane"]["pruned_at"] is None


def test_pruning_needs_a_holdout(bars):
    config = dataclasses.replace(CONFIG, data=DataConfig())
    with pytest.raises(InputError, match="give --holdout"):
        sweep(config, RATES, bars, prune=True)


def test_resume_begins_where_there_is_nothing(bars, two, whole, tmp_path):
    got, want = sweep(CONFIG, RATES, bars, devices=two, out=tmp_path, resume=True), whole[0]
    assert (got.rows, got.history) == (want.rows, want.history)
    assert (tmp_path / "checkpoints" / "3.safetensors").exists()


def test_summary_of_a_sweep_with_a_lane_that_diverged_is_json(bars, tmp_path):
    """JSON has no NaN; a reader in another language would refuse the file."""
    run = make_small_run(bars, DECAYING_GRID, DECAYING)
    run.train()
    result = sweep(DECAYING, DECAYING_GRID, bars, devices=jax.devices()[:2])
    lost, kept = result.rows[2], result.rows[:2]
    assert 0 < lost["diverged_at"] < 12 and np.isnan(lost["train_loss"]), lost
    assert [row["diverged_at"] for row in kept] == [None, None]
    epochs = [row for row in result.history if row["lane"] == 2]
    assert len(epochs) == 3 and epochs[1]["test_accuracy"] == epochs[2]["test_accuracy"]
    assert result.summary["best_lane"]["lane"] != 2 and result.summary["num_diverged"] == 1
    write_sweep(tmp_path, run, dataclasses.replace(result, summary={**result.summary, "best_lane": lost}))
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["best_lane"]["train_loss"] is None and summary["best_lane"]["diverged_at"] == lost["diverged_at"]


def test_bad_arguments_are_refused(bars):
    for grid, width, message in (
        (RATES, 0, "width must be >= 1"),
        ({"batch_size": (401,)}, 1, "batch_size must be <= 400"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(CONFIG, grid, bars, width=width)
