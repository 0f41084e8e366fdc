"""What a sweep knows so far, and the checkpoints that let it go on: each group of lanes has its own.

A group's checkpoint holds its lanes' states and results, and which lanes of the sweep were dropped by then.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_s6.runs import checkpoints as checkpoint
from jax_s6.runs import processes as distributed
from jax_s6.training import plan as grids
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.training.plan import Plan
from jax_s6.runs.identity import identity
from jax_s6.training.lanes import GroupTrainer, state_shapes
from jax_s6.runs.signals import Stopper


class Records:
    """Every lane's results by epoch.

    Attributes:
        metrics: float64 ``[lanes, epochs]`` by name: ``train_loss``, ``test_accuracy``, ...
        epochs: int ``[lanes]``, how many of them are filled.
        diverged_at: int ``[lanes]``, a step, or -1.
        pruned_at: int ``[lanes]``, the epoch after which a lane was dropped, or 0.
        rung: The last epoch after which it was decided which lanes to drop, or 0.
    """

    def __init__(self, plan: Plan, holdout: int):
        """Makes room."""
        splits = ("train", "test", *(["validation"] if holdout else []))
        names = [f"{split}_{kind}" for split in splits for kind in ("loss", "accuracy")]
        names += ["train_gradient_norm", "train_update_norm"]
        shape = (plan.num_lanes, plan.num_epochs)
        self.metrics = {name: np.full(shape, np.nan) for name in names}
        self.epochs = np.zeros(plan.num_lanes, np.int64)
        self.diverged_at = np.full(plan.num_lanes, -1, np.int64)
        self.pruned_at = np.zeros(plan.num_lanes, np.int64)
        self.rung = 0

    def add_epoch(self, lanes: np.ndarray, epoch: int, values: dict[str, np.ndarray]) -> None:
        """Notes the results of an epoch, from 1."""
        for name, value in values.items():
            self.metrics[name][lanes, epoch - 1] = value
        self.epochs[lanes] = epoch

    def repeat_epoch(self, lanes: np.ndarray, epoch: int) -> None:
        """Notes for lanes frozen in an earlier epoch what they still are, and that they trained on nothing."""
        for name, values in self.metrics.items():
            values[lanes, epoch - 1] = np.nan if name.startswith("train") else values[lanes, epoch - 2]
        self.epochs[lanes] = epoch

    def latest(self, name: str, lanes: np.ndarray) -> np.ndarray:
        """Returns a metric of each lane's last epoch."""
        return self.metrics[name][lanes, self.epochs[lanes] - 1]


def sweep_identity(plan: Plan, checksum: str, prune: bool) -> dict[str, Any]:
    """Returns what must be the same when a sweep goes on: settings, grid, data and code."""
    values = {name: list(dict.fromkeys(plan.columns[name].tolist())) for name in grids.SETTINGS}
    settings = identity(dataclasses.asdict(plan.config), checksum)
    settings |= {name: value[0] if len(value) == 1 else value for name, value in values.items()}
    return {**settings, "order of the grid": list(plan.grid), "prune": prune}


class Keeper:
    """The checkpoints of a sweep's groups. Without a folder it keeps nothing."""

    def __init__(
        self,
        out: Path | None,
        plan: Plan,
        about: dict[str, Any],
        config: CheckpointConfig,
        stopper: Stopper | None = None,
    ):
        """Names the folders; ``start`` or ``load`` prepares them.

        Args:
            out: The sweep's folder, or None.
            plan: The grid.
            about: What must be the same when it goes on.
            config: How often, and how many are kept.
            stopper: Says when to end before the end.
        """
        self._plan, self._config, self._stopper = plan, config, stopper
        folders = [] if out is None else [out / checkpoint.FOLDER / f"group-{i}" for i in range(len(plan.groups))]
        self._stores = [checkpoint.Store(folder, about, config.keep) for folder in folders]

    def __enter__(self) -> "Keeper":
        """Lets ``with`` end only when all is written, whatever ends the work inside."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits.

        Raises:
            InputError: A checkpoint could not be written.
        """
        self.wait()

    def start(self) -> None:
        """Forgets what an earlier sweep left."""
        for store in self._stores if distributed.is_main() else ():
            store.clear()

    def epoch_done(self, number: int, trainer: GroupTrainer, records: Records) -> None:
        """Keeps a group's epoch if that is due, and ends the sweep if that is asked.

        Raises:
            InputError: A checkpoint cannot be written.
            Stopped: A signal came.
        """
        # A signal reaches the processes one after the other, but all must end after the same epoch.
        signal = distributed.largest((self._stopper and self._stopper.requested) or 0)
        stop = signal > 0
        due = self._config.is_due(trainer.epoch, trainer.group.config.num_epochs)
        if self._stores and distributed.is_main() and (stop or due):
            self._save(number, trainer, records)
        if stop and self._stopper is not None:
            self._stopper.requested = signal
            self._stopper.stop_if_requested()

    def wait(self) -> None:
        """Waits until all is written.

        Raises:
            InputError: It could not be.
        """
        for store in self._stores:
            store.wait()

    def _save(self, number: int, trainer: GroupTrainer, records: Records) -> None:
        lanes = trainer.group.lanes
        kept = {"epochs": records.epochs[lanes], "diverged_at": records.diverged_at[lanes]}
        kept |= {name: values[lanes] for name, values in records.metrics.items()}
        copies = jax.tree.map(np.array, trainer.state)  # the next epoch writes into these arrays
        arrays = checkpoint.flatten(copies, "state") | checkpoint.flatten(kept, "lanes")
        arrays["pruned_at"] = records.pruned_at.copy()
        about = {
            "rung": records.rung,
            "lane_epochs": trainer.lane_epochs,
            "compile_seconds": trainer.compile_seconds,
            "train_seconds": trainer.train_seconds,
        }
        self._stores[number].save(trainer.epoch, arrays, about)

    def load(self, number: int, trainer: GroupTrainer, records: Records) -> None:
        """Takes up a group where its newest intact checkpoint left it, or leaves it at the beginning.

        Raises:
            InputError: The checkpoint is of another sweep, or all are damaged.
        """
        kept = self._stores[number].load()
        if kept is None:
            if distributed.is_main():
                self._stores[number].clear()
            return
        lanes = trainer.group.lanes
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((len(lanes), *x.shape), x.dtype), state_shapes(self._plan, trainer.group)
        )
        trainer.state = jax.tree.map(np.array, checkpoint.unflatten(shapes, kept.arrays, "state"))
        trainer.epoch, trainer.lane_epochs = kept.epoch, kept.about["lane_epochs"]
        trainer.compile_seconds += kept.about["compile_seconds"]
        trainer.train_seconds = kept.about["train_seconds"]
        for name, values in {**records.metrics, "epochs": records.epochs, "diverged_at": records.diverged_at}.items():
            values[lanes] = kept.arrays[f"lanes.{name}"]
        # Another group's checkpoint may be of before the last rung, or of after it.
        records.pruned_at = np.maximum(records.pruned_at, kept.arrays["pruned_at"])
        records.rung = max(records.rung, kept.about["rung"])
