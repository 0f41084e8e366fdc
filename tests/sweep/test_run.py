"""Sweeps from Python: lanes equal the run alone, divergence, pruning, resuming, memory that is short."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from jax_s6 import backend
from jax_s6.config import RECIPES, AugmentConfig, DataConfig, ModelConfig
from jax_s6.errors import InputError
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.runs.records import sweep_identity
from jax_s6.settings import flatten, replace
from jax_s6.sweep.run import Listener, sweep
from jax_s6.train import command as train_module
from jax_s6.training import lanes
from jax_s6.training import plan as grids
from jax_s6.training.arrangement import arrange, balanced
from jax_s6.training.lanes import GroupTrainer

# Without augmentation, whose compilation is most of a program's, and dropout.
CONFIG = dataclasses.replace(
    RECIPES["best"],
    batch_size=32,
    num_epochs=3,
    data=DataConfig(holdout=50),
    model=ModelConfig(),
    augment=AugmentConfig(),
)
# The last lane diverges: each step multiplies the kernels by about -1e6.
GRID = {"learning_rate": (0.02, 0.05, 1e6), "seed": (0, 1)}
DECAYING = replace(CONFIG, {"weight_decay": 1.0, "initial_fraction": 1.0})
DECAYING_GRID = {"learning_rate": (0.002, 0.004, 1e6), "seed": (0,)}


KEEP_ALL = CheckpointConfig(keep=9)


class Heard(Listener):
    """Keeps what a sweep says."""

    def __init__(self):
        self.lines, self.said_lines, self.lane_epochs = [], [], 0

    def lanes_done(self, count, images_per_second):
        self.lane_epochs += count

    def epoch_done(self, text):
        self.lines.append(text)

    def said(self, text):
        self.said_lines.append(text)


class Narrowed(Listener):
    """Sets the width to 1 after the first epoch."""

    def planned(self, trainers, plan):
        self.trainer = trainers[0]

    def epoch_done(self, text):
        if self.trainer.epoch == 1:
            self.trainer._set_width(1)


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    """Compiles each program once for the module: a sweep prepares its own, but the same one for the same group."""
    programs, prepare = {}, GroupTrainer._prepare

    def prepare_once(self):
        settings = tuple(flatten(self.group.config)[name] for name in grids.STATIC)
        key = (settings, self.data.num_train, tuple(self.arrangement.devices), *self.arrangement[1:])
        if self._trainer is None and key in programs:
            self._splits = self.data.place(programs[key][0], self.arrangement.devices)
            self._trainer, self._compiled = programs[key]
        trainer = prepare(self)
        programs[key] = (trainer, self._compiled)
        return trainer

    GroupTrainer._prepare = prepare_once
    yield
    GroupTrainer._prepare = prepare


@pytest.fixture(scope="module")
def two():
    return jax.devices()[:2]


@pytest.fixture(scope="module")
def decaying(bars, two):
    return sweep(DECAYING, DECAYING_GRID, bars, devices=two)


@pytest.fixture(scope="module")
def whole(bars, two):
    """Five lanes on two devices: the last chunk has a lane that is only padding."""
    heard = Heard()
    return sweep(CONFIG, {"learning_rate": (0.01, 0.02, 0.03, 0.05, 0.1)}, bars, devices=two, listener=heard), heard


def train_alone(config, dataset):
    return train_module.train(config, dataset, train_module.prepare(config, dataset, num_devices=1))


def lane(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def assert_equal_rows(got, want):
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_equal(got[name], want[name], err_msg=name)


def test_lane_equals_train_alone_bit_for_bit(bars, whole):
    result, _ = whole
    alone = train_alone(replace(CONFIG, {"learning_rate": 0.1}), bars)
    jax.tree.map(np.testing.assert_array_equal, lane(result.variables, 4), alone.variables)
    row = result.rows[4]
    for name in ("train_loss", "test_loss", "test_accuracy", "best_test_accuracy", "validation_accuracy"):
        assert row[name] == alone.summary[name], name


def test_rows_history_and_progress_leave_padding_out(whole):
    result, heard = whole
    assert [row["lane"] for row in result.rows] == list(range(5))
    assert [row["learning_rate"] for row in result.rows] == [0.01, 0.02, 0.03, 0.05, 0.1]
    assert [(r["lane"], r["epoch"]) for r in result.history] == [(i, e) for i in range(5) for e in (1, 2, 3)]
    assert heard.lane_epochs == 15 and len(heard.lines) == 3
    assert result.summary["groups"][0]["width"] == 1 and result.summary["devices"] == 2
    for row in result.rows:
        epochs = [r for r in result.history if r["lane"] == row["lane"]]
        assert row["best_test_accuracy"] == max(r["test_accuracy"] for r in epochs)
        assert row["test_loss"] == epochs[-1]["test_loss"]


def test_padding_is_not_trained(bars, two, monkeypatch):
    losses, means = [], lanes.means

    def keep(metrics):
        losses.append(np.asarray(metrics.train.loss))
        return means(metrics)

    monkeypatch.setattr(lanes, "means", keep)
    sweep(replace(CONFIG, {"num_epochs": 1}), {"learning_rate": (0.01, 0.02, 0.03)}, bars, devices=two)
    # Three lanes on two devices: the second chunk's second lane is padding, which would have a loss if it were trained.
    assert [np.isnan(chunk).tolist() for chunk in losses] == [[False, False], [False, True]]


def test_to_pandas_has_a_row_a_lane(whole):
    table = whole[0].to_pandas()
    assert table.index.tolist() == list(range(5)) and table.loc[3, "learning_rate"] == 0.05


def test_diverged_lane_is_frozen_marked_and_touches_no_other(bars, two, decaying):
    lost, kept = decaying.rows[2], decaying.rows[:2]
    assert 0 < (lost["diverged_at"] or 0) < 14 and np.isnan(lost["train_loss"]), lost
    assert [row["diverged_at"] for row in kept] == [None, None]
    epochs = [r for r in decaying.history if r["lane"] == 2]
    assert len(epochs) == 3 and epochs[1]["test_accuracy"] == epochs[2]["test_accuracy"]
    without = sweep(DECAYING, {"learning_rate": (0.002, 0.004)}, bars, devices=two)
    for index in (0, 1):
        jax.tree.map(np.testing.assert_array_equal, lane(decaying.variables, index), lane(without.variables, index))
    assert decaying.summary["best_lane"]["lane"] != 2


def test_settings_that_shape_the_program_make_groups_whose_lanes_keep_their_numbers(bars, two, whole):
    grid = {"num_epochs": (2, 3), "learning_rate": (0.01, 0.05)}
    result = sweep(CONFIG, grid, bars, devices=two)
    assert [group["lanes"] for group in result.summary["groups"]] == [2, 2]
    assert [len([r for r in result.history if r["lane"] == i]) for i in range(4)] == [2, 2, 3, 3]
    for index, other in ((2, 0), (3, 3)):  # three epochs: the lanes of the other sweep
        jax.tree.map(np.testing.assert_array_equal, lane(result.variables, index), lane(whole[0].variables, other))


def test_pruning_drops_the_worse_half_and_leaves_survivors_as_they_are(bars, two, whole):
    heard = Heard()
    grid = {"learning_rate": (0.01, 0.02, 0.03, 0.05, 0.1)}
    result = sweep(CONFIG, grid, bars, devices=two, prune=True, listener=heard)
    assert heard.lane_epochs == 5 + 3 + 2, "dropped lanes were trained"
    at = [row["pruned_at"] for row in result.rows]
    assert (at.count(1), at.count(2), at.count(None)) == (2, 1, 2)
    first = [next(r for r in whole[0].history if r["lane"] == i and r["epoch"] == 1) for i in range(5)]
    ranked = sorted(range(5), key=lambda i: (-first[i]["validation_accuracy"], first[i]["validation_loss"]))
    assert {i for i in range(5) if at[i] == 1} == set(ranked[3:]), "not the worst two of the held-out images"
    for index in (i for i in range(5) if at[i] is None):
        jax.tree.map(np.testing.assert_array_equal, lane(result.variables, index), lane(whole[0].variables, index))
    assert result.summary["best_lane"]["pruned_at"] is None


def test_pruning_needs_a_holdout(bars):
    config = dataclasses.replace(CONFIG, data=DataConfig())
    with pytest.raises(InputError, match="give --holdout"):
        sweep(config, GRID, bars, prune=True)


class Killed(Exception):
    """What stands for a kill."""


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("after", [1, 3])
def test_killed_sweep_goes_on_and_ends_the_same(bars, two, tmp_path, monkeypatch, after, prune):
    grid = {"num_epochs": (2, 3), "learning_rate": (0.01, 1e6)}
    config = replace(DECAYING, {"label_smoothing": 0.1})
    want = sweep(config, grid, bars, devices=two, prune=prune)
    calls, train_chunk = 0, GroupTrainer._train_chunk

    def die_later(self, chunk):
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return train_chunk(self, chunk)

    monkeypatch.setattr(GroupTrainer, "_train_chunk", die_later)
    with pytest.raises(Killed):
        sweep(config, grid, bars, devices=two, prune=prune, out=tmp_path)
    trained = []

    def count(self, chunk):
        trained.append(len(chunk))
        return train_chunk(self, chunk)

    monkeypatch.setattr(GroupTrainer, "_train_chunk", count)
    got = sweep(config, grid, bars, devices=two, prune=prune, out=tmp_path, resume=True)
    monkeypatch.setattr(GroupTrainer, "_train_chunk", train_chunk)
    for a, b in zip(got.rows + got.history, want.rows + want.history, strict=True):
        assert_equal_rows(a, b)
    jax.tree.map(np.testing.assert_array_equal, got.variables, want.variables)
    epochs = sum(group["settings"]["num_epochs"] for group in want.summary["groups"])
    assert len(trained) < epochs, "it started from the beginning"


def test_resuming_something_else_is_refused(bars, two, tmp_path):
    config = dataclasses.replace(CONFIG, num_epochs=2)
    grid = {"learning_rate": (0.01, 0.05)}
    sweep(config, grid, bars, devices=two, out=tmp_path)
    resume = {"devices": two, "out": tmp_path, "resume": True}
    sweep(config, grid, bars, **resume)
    with pytest.raises(InputError, match="momentum is 0.8 here but 0.9"):
        sweep(replace(config, {"momentum": 0.8}), grid, bars, **resume)
    with pytest.raises(InputError, match=r"learning_rate is \[0.01, 0.06\] here but \[0.01, 0.05\]"):
        sweep(config, {"learning_rate": (0.01, 0.06)}, bars, **resume)
    with pytest.raises(InputError, match="learning_rate is 0.01 here"):
        sweep(config, {"learning_rate": (0.01,)}, bars, **resume)
    with pytest.raises(InputError, match='data is "other" here'):
        sweep(config, grid, dataclasses.replace(bars, checksum="other"), **resume)


def test_order_of_the_grid_numbers_the_lanes_and_so_must_be_the_same():
    orders = ({"seed": (0, 1), "momentum": (0.8, 0.9)}, {"momentum": (0.8, 0.9), "seed": (0, 1)})
    first, second = (sweep_identity(grids.make_plan(CONFIG, grid), "data", False) for grid in orders)
    assert {name for name in first if first[name] != second[name]} == {"order of the grid"}


def test_group_that_fell_back_before_a_rung_trains_the_lanes_that_were_dropped_there(bars, two, tmp_path, monkeypatch):
    """Two groups; the newest checkpoint of the second, of after the rung, is lost."""
    config = dataclasses.replace(CONFIG, num_epochs=3)
    grid = {"learning_rate": (0.02, 0.05), "batch_size": (32, 25)}
    want = sweep(config, grid, bars, devices=two, prune=True, out=tmp_path, checkpoints=KEEP_ALL)
    for folder in (tmp_path / "checkpoints" / "group-0", tmp_path / "checkpoints" / "group-1"):
        (folder / "3.safetensors").unlink()
    (tmp_path / "checkpoints" / "group-1" / "2.safetensors").unlink()
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "checkpoints", again / "checkpoints")
    got = sweep(config, grid, bars, devices=two, prune=True, out=again, resume=True, checkpoints=KEEP_ALL)
    assert got.rows == want.rows and got.history == want.history
    assert any(row["pruned_at"] for row in want.rows)


def test_resume_begins_where_there_is_nothing(bars, two, decaying, tmp_path):
    got = sweep(DECAYING, DECAYING_GRID, bars, devices=two, out=tmp_path, resume=True)
    assert len(got.history) == len(decaying.history)
    assert (tmp_path / "checkpoints" / "group-0" / "3.safetensors").exists()
    for row, want in zip(got.rows, decaying.rows, strict=True):
        assert_equal_rows(row, want)


def test_out_of_memory_halves_the_width_and_loses_nothing(bars, two, monkeypatch):
    heard, prepare = Heard(), GroupTrainer._prepare
    failed = []

    def prepare_small(self):
        trainer = prepare(self)
        compiled = self._compiled

        def run_out(hyper, state, number, *splits):
            if self.arrangement.width > 1 and int(number) >= 1:  # in the second epoch, the state being donated
                failed.append(self.arrangement.width)
                jax.tree.map(lambda x: x.delete(), state)
                raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte.")
            return compiled.epoch(hyper, state, number, *splits)

        self._compiled = compiled._replace(epoch=run_out)
        return trainer

    grid = {"learning_rate": (0.01, 0.02, 0.03, 0.05, 0.1)}
    want = sweep(CONFIG, grid, bars, devices=two, width=2, listener=Narrowed())
    monkeypatch.setattr(GroupTrainer, "_prepare", prepare_small)
    result = sweep(CONFIG, grid, bars, devices=two, width=2, listener=heard)
    assert failed == [2] and heard.said_lines == ["out of memory with 2 lanes at once on a device: going on with 1"]
    assert result.summary["width"] == 1 and heard.lane_epochs == 15
    for got, other in zip(result.history, want.history, strict=True):
        assert_equal_rows(got, other)
    jax.tree.map(np.testing.assert_array_equal, result.variables, want.variables)


def test_out_of_memory_with_one_lane_is_said_in_a_sentence(bars, two, monkeypatch):
    def run_out(self, chunk):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(GroupTrainer, "_train_chunk", run_out)
    with pytest.raises(InputError, match="batch_size 32 does not fit"):
        sweep(CONFIG, {"learning_rate": (0.01, 0.02)}, bars, devices=two)


def test_other_errors_of_jax_are_not_hidden(bars, two, monkeypatch):
    def fail(self, chunk):
        raise JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(GroupTrainer, "_train_chunk", fail)
    with pytest.raises(JaxRuntimeError, match="something else"):
        sweep(CONFIG, {"learning_rate": (0.01, 0.02)}, bars, devices=two)


def test_lanes_go_to_devices_first_and_what_is_left_to_the_batch():
    four = jax.devices()[:4]

    def parts(num_lanes, batch_size=256, devices=four, width=None, explicit=False):
        found = arrange(num_lanes, batch_size, devices, width, explicit)
        return found.lane_devices, len(found.devices) // found.lane_devices, found.width

    assert parts(8) == parts(5) == parts(4) == (4, 1, 1)
    assert parts(3) == (3, 1, 1)
    assert parts(2) == (2, 2, 1)
    assert parts(1) == (1, 4, 1)
    assert parts(1, batch_size=258) == (1, 3, 1), "each device must have an equal part of a batch"
    assert parts(1, batch_size=128) == (1, 2, 1), "parts of fewer than 64 images do not pay"
    assert parts(1, batch_size=64, explicit=True) == (1, 4, 1)
    assert parts(40, width=4) == (4, 1, 4)  # ten a device: 4, 4 and 2 would be 3 calls, as 4 is
    assert [balanced(10, most) for most in (1, 4, 5, 8, 10, 99)] == [1, 4, 5, 5, 10, 10]


def test_a_run_takes_as_many_cpu_devices_as_have_64_images_each():
    def count(batch_size, chosen=None):
        return len(backend.batch_devices(batch_size, chosen))

    assert [count(batch_size) for batch_size in (32, 64, 127, 128, 192, 256, 1024)] == [1, 1, 1, 2, 3, 4, 4]
    assert count(64, 2) == 2, "what the user asks for is taken"


def test_width_on_an_accelerator_follows_its_memory():
    class Gpu:
        platform = "gpu"

        def __init__(self, gigabytes):
            self.gigabytes = gigabytes

        def memory_stats(self):
            return {"bytes_limit": self.gigabytes * 10**9, "bytes_in_use": 0}

    def widths(num_lanes, gigabytes):
        return arrange(num_lanes, 64, [Gpu(gigabytes)], None, explicit=False).width  # pyright: ignore

    assert widths(1000, 80) > 2 * widths(1000, 16) > 2
    assert widths(6, 80) == 6, "never wider than there are lanes"
    assert widths(1000, 0.01) == 1


def test_bad_arguments_are_refused(bars):
    for grid, width, message in (
        (GRID, 0, "width must be >= 1"),
        ({"batch_size": (451,)}, 1, "batch_size must be <= 450"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(CONFIG, grid, bars, width=width)
