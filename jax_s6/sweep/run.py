"""Train a grid of runs in few compiled programs: ``sweep(config, grid)``, and ``python -m jax_s6.sweep``."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_s6 import data
from jax_s6.config import TrainConfig
from jax_s6.errors import InputError
from jax_s6.runs import processes as distributed
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.runs.records import Keeper, Records, sweep_identity
from jax_s6.runs.signals import Stopper
from jax_s6.sweep.result import SweepResult, best_lane, judge, make_result, ranking
from jax_s6.training import plan as grids
from jax_s6.training.arrangement import Arrangement, arrange
from jax_s6.training.lanes import GroupTrainer, SharedData
from jax_s6.training.plan import Plan


class Listener:
    """Is told how a sweep gets on; this one ignores it."""

    def planned(self, trainers: Sequence[GroupTrainer], plan: Plan) -> None:
        """The groups, before anything is compiled."""

    def lanes_done(self, count: int, images_per_second: float) -> None:
        """So many lanes have trained for an epoch."""

    def epoch_done(self, text: str) -> None:
        """A group's epoch, as a line."""

    def said(self, text: str) -> None:
        """Something happened that the user should know."""


@dataclass
class _Sweep:
    """A sweep that is under way."""

    plan: Plan
    trainers: list[GroupTrainer]
    records: Records
    listener: Listener
    prune: bool
    keeper: Keeper

    def run(self) -> None:
        """Trains all groups to the end, or from rung to rung."""
        num_epochs = self.plan.num_epochs
        rungs = grids.rungs(num_epochs) if self.prune else ()
        for stop in (*rungs, num_epochs):
            for number, trainer in enumerate(self.trainers):
                while trainer.epoch < min(stop, trainer.group.config.num_epochs):
                    self._train_epoch(number, trainer)
            if stop in rungs and stop > self.records.rung:
                self._drop_worse_half(stop)

    def _train_epoch(self, number: int, trainer: GroupTrainer) -> None:
        records, lanes, start = self.records, trainer.group.lanes, time.perf_counter()
        pruned_at = records.pruned_at[lanes]
        live = (pruned_at == 0) | (pruned_at > trainer.epoch)  # a resumed group may be before the rung
        frozen = live & (records.diverged_at[lanes] >= 0)
        positions = np.flatnonzero(live & ~frozen)
        trained = 0

        def on_chunk(count: int) -> None:
            nonlocal trained
            trained += count
            self.listener.lanes_done(count, trained * trainer.images_per_epoch / (time.perf_counter() - start))

        compiled = trainer.compile_seconds
        values = trainer.train_epoch(positions, on_chunk)
        records.add_epoch(lanes[positions], trainer.epoch, values)
        records.repeat_epoch(lanes[frozen], trainer.epoch)
        assert trainer.state is not None
        records.diverged_at[lanes] = trainer.state.diverged_at
        seconds = time.perf_counter() - start - (trainer.compile_seconds - compiled)
        rate = len(positions) * trainer.images_per_epoch / seconds
        self.listener.epoch_done(self._line(number, trainer, len(positions), rate))
        self.keeper.epoch_done(number, trainer, records)

    def _line(self, number: int, trainer: GroupTrainer, trained: int, rate: float) -> str:
        """Says what an epoch of a group brought."""
        group = f"group {number + 1}/{len(self.trainers)}  " if len(self.trainers) > 1 else ""
        best = best_lane(self.records)
        score = self.records.latest(judge(self.records), np.array([best]))[0]
        settings = self.plan.settings(best)
        about = ", ".join(f"{name} {settings[name]}" for name in self.plan.grid) or "alone"
        return (
            f"{group}epoch {trainer.epoch:>3}/{trainer.group.config.num_epochs}  {trained} lanes  {rate:,.0f}"
            f" model-images/s  best lane {best} ({about}): {judge(self.records).replace('_', ' ')} {score:.2%}"
        )

    def _drop_worse_half(self, rung: int) -> None:
        """Drops lanes that have epochs to go; those that are finished take part in the comparison only."""
        records = self.records
        live = np.flatnonzero(records.pruned_at == 0)
        dropped = live[ranking(records, live)[-(-len(live) // 2) :]]
        dropped = dropped[self.plan.columns["num_epochs"][dropped] > rung]
        records.pruned_at[dropped] = records.rung = rung
        self.listener.said(f"after epoch {rung}: {len(dropped)} of {len(live)} lanes dropped")


def sweep(
    config: TrainConfig,
    grid: Mapping[str, Sequence[Any]] | None = None,
    dataset: data.Dataset | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
    width: int | None = None,
    prune: bool = False,
    out: Path | None = None,
    resume: bool = False,
    checkpoints: CheckpointConfig | None = None,
    listener: Listener | None = None,
    stopper: Stopper | None = None,
) -> SweepResult:
    """Trains every combination of a grid's values.

    Args:
        config: The settings that the grid does not name.
        grid: Values by setting, such as ``{"learning_rate": (0.1, 0.2), "seed": range(3)}``; the assignment's six
            rates if None.
        dataset: The images; what ``config.data`` names if None.
        devices: Where to run; all devices if None. On CPU, call ``backend.use_cpu_devices()`` before any other use of
            JAX for a device a core.
        width: The most lanes at once on a device; None for 1 on CPU, and what fits in memory on an accelerator.
        prune: Whether to drop the worse half of the lanes after epochs 1, 2, 4, ..., judged on the held-out images.
        out: A folder for checkpoints; None keeps none.
        resume: Whether to go on from those in ``out``.
        checkpoints: How many, and how often; an epoch's each, and two, if None.
        listener: Is told of progress.
        stopper: Says when to end before the end.

    Returns:
        The results. With width 1 and a lane or more a device, a lane equals ``train`` on one device bit for bit, else
        to rounding.

    Raises:
        InputError: A setting or the grid cannot be used, or a checkpoint cannot be written or is of another sweep.
    """
    plan = grids.make_plan(config, grids.DEFAULT_GRID if grid is None else grid)
    dataset = data.load(config.data) if dataset is None else dataset
    listener = listener or Listener()
    trainers = make_trainers(plan, dataset, devices, width, listener, prune)
    records = Records(plan, config.data.holdout)
    about = sweep_identity(plan, dataset.checksum, prune)
    distributed.require_same(str(about), "settings, grid and data")
    keeper = Keeper(out, plan, about, checkpoints or CheckpointConfig(), stopper)
    if out is not None and resume:
        for number, trainer in enumerate(trainers):
            keeper.load(number, trainer, records)
        distributed.require_same(str([trainer.epoch for trainer in trainers]), "unfinished sweep: share --out")
    elif out is not None:
        keeper.start()
    listener.planned(trainers, plan)
    with keeper:
        _Sweep(plan, trainers, records, listener, prune, keeper).run()
    return make_result(plan, trainers, records, dataset, prune)


def make_trainers(
    plan: Plan,
    dataset: data.Dataset,
    devices: Sequence[jax.Device] | None,
    width: int | None,
    listener: Listener,
    prune: bool,
) -> list[GroupTrainer]:
    """Checks what depends on the data and the machine, and arranges each group on the devices.

    Raises:
        InputError: The batch is larger than the training set, or pruning has nothing to judge by.
    """
    config = plan.config
    if prune and not config.data.holdout:
        raise InputError("prune judges lanes on held-out images, but holdout is 0: give --holdout, such as 5000")
    if width is not None and width < 1:
        raise InputError(f"width must be >= 1, got {width}")
    shared = SharedData(dataset, config.data.holdout)
    largest = int(plan.columns["batch_size"].max())
    if largest > shared.num_train:
        raise InputError(f"batch_size must be <= {shared.num_train}, the number of training images, got {largest}")
    found = list(jax.devices() if devices is None else devices)

    def place(group: grids.Group) -> Arrangement:
        return arrange(len(group.lanes), group.config.batch_size, found, width, explicit=devices is not None)

    return [GroupTrainer(plan, group, shared, place(group), listener.said) for group in plan.groups]
