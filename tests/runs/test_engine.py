"""The epoch loop: a lane that diverges touches no other, and a killed run resumes as if nothing had happened."""

import shutil

import numpy as np
import pytest

from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.settings import replace
from jax_s6.training.lanes import GroupTrainer
from tests.small_runs import CONFIG, DECAYING, DECAYING_GRID, assert_same_lane, assert_same_runs, make_small_run

pytestmark = pytest.mark.usefixtures("shared_programs")
TWO_GROUPS = {"num_epochs": (2, 3), "learning_rate": (0.02, 0.05)}
KEEP_ALL = CheckpointConfig(keep=9)


class Killed(Exception):
    """Stands for a kill."""


def test_diverged_lane_is_frozen_marked_and_touches_no_other(bars):
    run = make_small_run(bars, DECAYING_GRID, DECAYING)
    run.train()
    records = run.records
    assert 0 < records.diverged_at[2] < 12 and records.diverged_at[:2].tolist() == [-1, -1]
    assert np.isnan(records.metrics["train_loss"][2, -1]), "the last epoch"
    assert records.epochs[2] == 3 and records.metrics["test_accuracy"][2, 1] == records.metrics["test_accuracy"][2, 2]
    assert records.best_lane() != 2
    without = make_small_run(bars, {"learning_rate": (0.002, 0.004)}, DECAYING)
    without.train()
    for index in (0, 1):
        assert_same_lane(run, without, index)


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("after", [1, 3])
def test_killed_run_resumes_and_ends_the_same(bars, tmp_path, monkeypatch, after, prune):
    grid = {"num_epochs": (2, 3), "learning_rate": (0.01, 1e6)}
    config = replace(DECAYING, {"label_smoothing": 0.1})
    want, killed, resumed = (make_small_run(bars, grid, config, prune=prune) for _ in range(3))
    want.train()
    trained, train_chunk = [], GroupTrainer._train_chunk

    def die_later(self, chunk):
        if len(trained) == after:
            raise Killed
        trained.append(len(chunk))
        return train_chunk(self, chunk)

    killed.open(tmp_path)
    monkeypatch.setattr(GroupTrainer, "_train_chunk", die_later)
    with pytest.raises(Killed):
        killed.train()
    after = float("inf")
    trained.clear()
    resumed.open(tmp_path, resume=True)
    resumed.train()
    assert_same_runs(resumed, want)
    assert 0 < len(trained) < 2 + 3, "it started from the beginning"


@pytest.mark.parametrize("lost", [(2, 3), (1, 2, 3)])
def test_group_that_fell_back_before_a_rung_trains_the_lanes_that_were_dropped_there(bars, tmp_path, lost):
    """The second group's checkpoints of after the rung are lost, or all of them: it must repeat epochs."""
    want, resumed = (make_small_run(bars, TWO_GROUPS, prune=True) for _ in range(2))
    want.open(tmp_path / "first", KEEP_ALL)
    want.train()
    assert any(want.records.pruned_at[want.plan.groups[1].lanes]), "no lane of the second group was dropped"
    shutil.copytree(tmp_path / "first" / "checkpoints", tmp_path / "again" / "checkpoints")
    for epoch in lost:
        (tmp_path / "again" / "checkpoints" / "group-1" / f"{epoch}.safetensors").unlink()
    resumed.open(tmp_path / "again", KEEP_ALL, resume=True)
    assert resumed.trainers[1].epoch == min(lost) - 1 < resumed.trainers[0].epoch
    resumed.train()
    assert_same_runs(resumed, want)


def test_resumed_run_that_was_finished_trains_nothing(bars, tmp_path, monkeypatch):
    grid = {"learning_rate": (0.02, 0.05)}
    first, second = (make_small_run(bars, grid, replace(CONFIG, {"num_epochs": 2})) for _ in range(2))
    first.open(tmp_path)
    first.train()
    monkeypatch.delattr(GroupTrainer, "_train_chunk")
    second.open(tmp_path, resume=True)
    second.train()
    assert_same_runs(second, first)
