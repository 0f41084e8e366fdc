"""The one epoch loop of ``train`` and ``sweep``: trains the lanes of a plan, with pruning and checkpoints.

A single run is a plan with one lane.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from jax_s6.data import Dataset
from jax_s6.errors import InputError
from jax_s6.runs import processes
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.runs.folder import OutputConfig, claimed, needs_work
from jax_s6.runs.keeper import CheckpointKeeper, run_identity
from jax_s6.runs.records import Records
from jax_s6.runs.signals import Stopper
from jax_s6.training import nans
from jax_s6.training.lanes import make_trainers
from jax_s6.training.plan import Plan, rungs


class Listener:
    """Is told of a run's progress; this one ignores it."""

    def started(self, run: "Run") -> None:
        """The run starts, before anything is compiled; a resumed one has its results so far."""

    def lanes_done(self, count: int, images_per_second: float) -> None:
        """A number of lanes have been trained for one epoch, at a mean rate since the epoch began."""

    def epoch_done(self, run: "Run", number: int, num_lanes: int, images_per_second: float) -> None:
        """A group, by its number from 0, has finished an epoch, in which ``num_lanes`` lanes were trained."""

    def notified(self, text: str) -> None:
        """Something happened that the user should know, in one sentence."""


def require_holdout(plan: Plan, prune: bool) -> None:
    """Raise InputError if lanes are to be pruned, but there are no held-out images to rank them by."""
    if prune and not plan.config.data.holdout:
        raise InputError("prune ranks lanes by held-out images, but holdout is 0: give --holdout, such as 5000")


class Run:
    """The lanes of a plan while they are trained.

    Attributes:
        plan: The lanes.
        dataset: The images.
        trainers: One per group.
        records: The results so far.
        prune: Whether the worse half of the lanes is dropped after epochs 1, 2, 4, ...
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        *,
        devices: Sequence[jax.Device] | None = None,
        width: int | None = None,
        prune: bool = False,
    ):
        """Check the plan against the data and the machine; nothing is compiled or written.

        Args:
            plan: The lanes.
            dataset: The images.
            devices: The devices to use; all if None, and one accelerator for a single lane.
            width: Largest number of lanes at once on a device; None: 1 on CPU, and what fits on accelerators.
            prune: Whether to drop the worse half of the lanes after epochs 1, 2, 4, ..., by the held-out images.

        Raises:
            InputError: The settings do not fit the data or the devices.
        """
        require_holdout(plan, prune)
        self.plan, self.dataset, self.prune = plan, dataset, prune
        self._listener = Listener()
        self.trainers = make_trainers(
            plan, dataset, devices=devices, width=width, notify=lambda text: self._listener.notified(text)
        )
        self.records = Records(plan)
        self._about = run_identity(plan, dataset.checksum, prune)
        self._keeper: CheckpointKeeper | None = None

    def open(self, out: Path, config: CheckpointConfig | None = None, *, resume: bool = False) -> None:
        """Keep checkpoints in a folder.

        Args:
            out: The run's folder.
            config: How often they are written, and how many are kept; the defaults if None.
            resume: Whether to continue from the newest ones there; they are removed otherwise.

        Raises:
            InputError: The folder cannot be written, or its checkpoints belong to another run.
        """
        processes.require_same(str(self._about), "settings, grid and data")
        config = config or CheckpointConfig()
        self._keeper = CheckpointKeeper(out, self.plan, self.trainers, self.records, self._about, config)
        if resume:
            self._keeper.load()
            epochs = str([trainer.epoch for trainer in self.trainers])
            processes.require_same(epochs, "unfinished sweep: share --out")
        else:
            self._keeper.start()

    def train(
        self, listener: Listener | None = None, stopper: Stopper | None = None, *, check_nans: bool = False
    ) -> None:
        """Train all groups to the end, or from rung to rung.

        Args:
            listener: Is told of the progress.
            stopper: Requests that the run stops after an epoch.
            check_nans: Whether to stop after an epoch whose loss is not finite; a lane is frozen there otherwise.

        Raises:
            InputError: A checkpoint cannot be written, memory is too small, or ``check_nans`` found something.
            Stopped: A signal came.
        """
        self._listener = listener or self._listener
        self._listener.started(self)
        stops = rungs(self.plan.num_epochs) if self.prune else ()
        try:
            for stop in (*stops, self.plan.num_epochs):
                for number, trainer in enumerate(self.trainers):
                    while trainer.epoch < min(stop, trainer.group.config.num_epochs):
                        self._train_epoch(number, check_nans)
                        self._save(number, stopper)
                if stop in stops and stop > self.records.rung:
                    self._drop_worse_half(stop)
        finally:
            if self._keeper is not None:
                self._keeper.wait()

    def _train_epoch(self, number: int, check_nans: bool) -> None:
        trainer, records, start = self.trainers[number], self.records, time.perf_counter()
        lanes, pruned_at = trainer.group.lanes, records.pruned_at[trainer.group.lanes]
        live = (pruned_at == 0) | (pruned_at > trainer.epoch)  # a resumed group may be before the rung
        frozen = live & (records.diverged_at[lanes] >= 0)
        positions = np.flatnonzero(live & ~frozen)
        trained, compiled = 0, trainer.compile_seconds

        def on_chunk(count: int) -> None:
            nonlocal trained
            trained += count
            self._listener.lanes_done(count, trained * trainer.images_per_epoch / (time.perf_counter() - start))

        if trainer.state is None:
            trainer.create()
        before = jax.tree.map(np.array, trainer.state) if check_nans else None
        values = trainer.train_epoch(positions, on_chunk)
        if before is not None and not all(np.isfinite(x).all() for name, x in values.items() if "_loss" in name):
            nans.explain(trainer.program, trainer.group.config, before, trainer.data.splits[0], trainer.epoch - 1)
        records.add_epoch(lanes[positions], trainer.epoch, values)
        records.repeat_epoch(lanes[frozen], trainer.epoch)
        assert trainer.state is not None
        records.diverged_at[lanes] = trainer.state.diverged_at
        seconds = time.perf_counter() - start - (trainer.compile_seconds - compiled)
        self._listener.epoch_done(self, number, len(positions), len(positions) * trainer.images_per_epoch / seconds)

    def _save(self, number: int, stopper: Stopper | None) -> None:
        """Write a checkpoint if one is due, and stop if a signal requests it."""
        # A signal reaches the processes one after the other, but all must stop after the same epoch.
        signal = processes.largest((stopper and stopper.requested) or 0)
        if self._keeper is not None:
            self._keeper.save(number, always=signal > 0)
        finished = all(trainer.epoch == trainer.group.config.num_epochs for trainer in self.trainers)
        if signal and stopper is not None and not finished:
            stopper.requested = signal
            stopper.stop_if_requested()

    def _drop_worse_half(self, rung: int) -> None:
        """Drop lanes that have epochs left; finished ones only take part in the comparison."""
        records = self.records
        live = np.flatnonzero(records.pruned_at == 0)
        dropped = records.ranking(live)[-(-len(live) // 2) :]
        dropped = dropped[self.plan.columns["num_epochs"][dropped] > rung]
        records.pruned_at[dropped] = records.rung = rung
        self._listener.notified(f"after epoch {rung}: {len(dropped)} of {len(live)} lanes dropped")


def train_in_folder(
    run: Run,
    out: Path,
    output: OutputConfig,
    checkpoints: CheckpointConfig,
    listener: Listener,
    stopper: Stopper,
    write: Callable[[], None],
    *,
    check_nans: bool = False,
) -> bool:
    """Train a run in its output folder, to which no other run may write at the same time.

    Args:
        run: The run.
        out: The folder.
        output: What happens to a run that is there.
        checkpoints: How often checkpoints are written, and how many are kept.
        listener: See ``Run.train``, as for ``stopper`` and ``check_nans``.
        stopper: Requests that the run stops.
        write: Writes the results; only one process calls it.
        check_nans: Whether to stop after an epoch whose loss is not finite.

    Returns:
        Whether there was something to do; False for a finished run that was to be resumed.
    """
    main = processes.is_main()
    with claimed(out) if main else contextlib.nullcontext():
        if not needs_work(out, output):  # another process may have been faster
            return False
        if main and output.overwrite:
            (out / "summary.json").unlink(missing_ok=True)  # a folder with a summary holds a finished run
        run.open(out, checkpoints, resume=output.resume)
        stopper.resumable()
        stopper.defer()
        run.train(listener, stopper, check_nans=check_nans)
        if main:
            write()
    return True
