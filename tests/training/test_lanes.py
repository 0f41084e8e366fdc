"""A group's lanes on their devices: padding, and memory that is short."""

import jax
import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from jax_s6.errors import InputError
from jax_s6.training import lanes
from jax_s6.training.lanes import GroupTrainer, make_trainers
from jax_s6.training.plan import make_plan
from tests.small_runs import CONFIG, RATES, assert_same_trees

pytestmark = pytest.mark.usefixtures("shared_programs")
EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte."


@pytest.fixture
def make_trainer(bars):
    """Makes the trainer of a few learning rates on two devices, and keeps what it reports."""

    def make(num_lanes, width=None):
        plan, notices = make_plan(CONFIG, {"learning_rate": RATES["learning_rate"][:num_lanes]}), []
        [trainer] = make_trainers(plan, bars, devices=jax.devices()[:2], width=width, notify=notices.append)
        return trainer, notices

    return make


def train_epochs(trainer, count=3, on_chunk=lambda count: None):
    """Trains all lanes; returns the results of each epoch."""
    return [trainer.train_epoch(np.arange(len(trainer.group.lanes)), on_chunk) for _ in range(count)]


def test_padding_is_not_trained(make_trainer, monkeypatch):
    losses, means = [], lanes.means

    def keep(metrics):
        losses.append(np.asarray(metrics.train.loss))
        return means(metrics)

    monkeypatch.setattr(lanes, "means", keep)
    trainer, _ = make_trainer(3)
    [results] = train_epochs(trainer, 1)
    # Three lanes on two devices: the second chunk's second lane is padding, which would have a loss if it were trained.
    assert [np.isnan(chunk).tolist() for chunk in losses] == [[False, False], [False, True]]
    assert trainer.lane_epochs == 3 and all(np.isfinite(x).all() and len(x) == 3 for x in results.values())


def test_out_of_memory_halves_the_width_and_loses_nothing(make_trainer, monkeypatch):
    want, _ = make_trainer(5, width=2)
    history = train_epochs(want, 1)
    want._set_width(1)
    history += train_epochs(want, 2)
    failed, trained, prepare = [], [], GroupTrainer.prepare

    def prepare_small(self):
        trainer = prepare(self)
        compiled = self._compiled

        def run_out(hyper, state, number, *splits):
            if self.arrangement.width > 1 and int(number) >= 1:  # in the second epoch, the state being donated
                failed.append(self.arrangement.width)
                jax.tree.map(lambda x: x.delete(), state)
                raise JaxRuntimeError(EXHAUSTED)
            return compiled.epoch(hyper, state, number, *splits)

        self._compiled = compiled._replace(epoch=run_out)
        return trainer

    monkeypatch.setattr(GroupTrainer, "prepare", prepare_small)
    trainer, notices = make_trainer(5, width=2)
    for got, expected in zip(train_epochs(trainer, on_chunk=trained.append), history, strict=True):
        assert_same_trees(got, expected)
    assert failed == [2] and notices == ["out of memory with 2 lanes at once on a device: continuing with 1"]
    assert trainer.arrangement.width == 1 and trainer.lane_epochs == sum(trained) == 15
    assert_same_trees(trainer.state, want.state)


def test_out_of_memory_with_one_lane_is_reported_in_a_sentence(make_trainer, monkeypatch):
    def run_out(self, chunk):
        raise JaxRuntimeError(EXHAUSTED)

    monkeypatch.setattr(GroupTrainer, "_train_chunk", run_out)
    with pytest.raises(InputError, match="batch_size 32 does not fit"):
        train_epochs(make_trainer(2)[0])


def test_other_errors_of_jax_are_not_hidden(make_trainer, monkeypatch):
    def fail(self, chunk):
        raise JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(GroupTrainer, "_train_chunk", fail)
    with pytest.raises(JaxRuntimeError, match="something else"):
        train_epochs(make_trainer(2)[0])


def test_few_lanes_that_are_left_get_a_narrower_program(make_trainer):
    trainer, _ = make_trainer(5, width=2)
    trainer.create()
    trainer.train_epoch(np.array([0, 1, 2]))
    assert trainer.arrangement.width == 2, "two devices with two lanes each"
    trainer.train_epoch(np.array([1, 4]))
    assert trainer.arrangement.width == 1
