"""Which checkpoints the groups of a run keep, where, and which run may resume from them; nothing here compiles."""

import dataclasses

import jax
import numpy as np
import pytest

from jax_s6.errors import InputError
from jax_s6.runs.checkpoints import CheckpointConfig, epochs
from jax_s6.runs.engine import Run
from jax_s6.runs.keeper import run_identity
from jax_s6.settings import replace
from jax_s6.training.lanes import state_shapes
from jax_s6.training.plan import make_plan
from tests.small_runs import CONFIG, make_small_run

RATES = {"learning_rate": (0.01, 0.05)}


def finish_epoch(run: Run, number: int, accuracy: float = 0.5):
    """Pretends that a group has trained for an epoch, and saves its checkpoint."""
    trainer, records = run.trainers[number], run.records
    lanes = trainer.group.lanes
    shapes = state_shapes(run.plan, trainer.group)
    trainer.epoch += 1
    trainer.state = jax.tree.map(lambda x: np.full((len(lanes), *x.shape), trainer.epoch, x.dtype), shapes)
    trainer.epoch_seconds.append(0.25)
    records.add_epoch(lanes, trainer.epoch, {name: np.full(len(lanes), accuracy) for name in records.metrics})
    assert run._keeper is not None
    run._keeper.save(number)
    run._keeper.wait()


@pytest.fixture
def folder(bars, tmp_path):
    """Holds the checkpoint of a run with two lanes after its first epoch."""
    run = make_small_run(bars, RATES)
    run.open(tmp_path)
    finish_epoch(run, 0)
    return tmp_path


def test_groups_have_folders_of_their_own_and_a_single_group_has_none(bars, tmp_path):
    for grid, folders in ((RATES, ["."]), ({"num_epochs": (2, 3)}, ["group-0", "group-1"])):
        run, out = make_small_run(bars, grid), tmp_path / str(len(folders))
        run.open(out)
        for number, name in enumerate(folders):
            finish_epoch(run, number)
            assert (out / "checkpoints" / name / "1.safetensors").exists()
        assert len(list(out.rglob("*.safetensors"))) == len(folders)


def test_all_that_a_resumed_run_needs_is_restored(bars, folder):
    run = make_small_run(bars, RATES)
    run.open(folder, resume=True)
    trainer, records = run.trainers[0], run.records
    assert (trainer.epoch, trainer.epoch_seconds) == (1, [0.25])
    assert all((x == 1).all() for x in jax.tree.leaves(trainer.state))
    assert records.epochs.tolist() == [1, 1] and records.history(1)[0]["test_accuracy"] == 0.5


def test_run_that_is_not_resumed_removes_what_is_there(bars, folder):
    run = make_small_run(bars, RATES)
    run.open(folder)
    assert epochs(folder / "checkpoints") == [] and run.trainers[0].epoch == 0


def test_best_epoch_of_a_single_lane_is_kept_besides_the_newest(bars, tmp_path):
    run = make_small_run(bars)
    run.open(tmp_path, CheckpointConfig(keep=1))
    for accuracy in (0.7, 0.6, 0.5):
        finish_epoch(run, 0, accuracy)
    assert sorted(epochs(tmp_path / "checkpoints")) == [1, 3]


def test_resuming_something_else_is_refused(bars, folder):
    other_data = dataclasses.replace(bars, checksum="other")
    for dataset, grid, changes, message in (
        (bars, RATES, {"momentum": 0.8}, "momentum is 0.8 here but 0.9"),
        (bars, {"learning_rate": (0.01, 0.06)}, {}, r"learning_rate is \[0.01, 0.06\] here but \[0.01, 0.05\]"),
        (bars, {"learning_rate": (0.01,)}, {}, "learning_rate is 0.01 here"),
        (other_data, RATES, {}, 'data is "other" here'),
    ):
        with pytest.raises(InputError, match=message):
            make_small_run(dataset, grid, replace(CONFIG, changes)).open(folder, resume=True)
    with pytest.raises(InputError, match="prune is true here but false"):
        make_small_run(bars, RATES, prune=True).open(folder, resume=True)


def test_order_of_the_grid_numbers_the_lanes_and_so_must_be_the_same():
    orders = ({"seed": (0, 1), "momentum": (0.8, 0.9)}, {"momentum": (0.8, 0.9), "seed": (0, 1)})
    first, second = (run_identity(make_plan(CONFIG, grid), "data", False) for grid in orders)
    assert {name for name in first if first[name] != second[name]} == {"order of the grid"}


def test_another_number_of_devices_per_batch_is_a_warning(bars, tmp_path, warnings_said):
    run = make_small_run(bars, devices=jax.devices()[:1])
    run.open(tmp_path)
    finish_epoch(run, 0)
    make_small_run(bars, devices=jax.devices()[:1]).open(tmp_path, resume=True)
    assert warnings_said() == []
    make_small_run(bars, devices=jax.devices()[:2]).open(tmp_path, resume=True)
    assert warnings_said() == ["1 devices shared each batch, and now 2 do: results are equal to rounding"]
