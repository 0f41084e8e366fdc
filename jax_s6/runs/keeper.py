"""The checkpoints of a run's groups: written after epochs, and read to resume the run.

A group's checkpoint holds its lanes' states and results, and which lanes of the run were dropped by then.
"""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_s6.runs import processes
from jax_s6.runs.checkpoints import FOLDER, Checkpoint, CheckpointConfig, Store, flatten, unflatten
from jax_s6.runs.identity import identity
from jax_s6.runs.records import Records
from jax_s6.training.lanes import GroupTrainer, state_shapes
from jax_s6.training.plan import SETTINGS, Plan

_logger = logging.getLogger(__name__)


def run_identity(plan: Plan, checksum: str, prune: bool) -> dict[str, Any]:
    """Return what must be the same when a run is resumed: settings, grid, data and code; JSON values by name."""
    values = {name: list(dict.fromkeys(plan.columns[name].tolist())) for name in SETTINGS}
    settings = identity(dataclasses.asdict(plan.config), checksum)
    settings |= {name: value[0] if len(value) == 1 else value for name, value in values.items()}
    return {**settings, "order of the grid": list(plan.grid), "prune": prune}


class CheckpointKeeper:
    """Writes and reads the checkpoints of all groups."""

    def __init__(
        self, out: Path, plan: Plan, trainers: Sequence[GroupTrainer], records: Records, about: dict[str, Any],
        config: CheckpointConfig,
    ):  # fmt: skip
        """Name the folders; ``start`` or ``load`` prepares them for writing.

        Args:
            out: The run's folder.
            plan: The lanes.
            trainers: The groups.
            records: The results of all lanes.
            about: What ``run_identity`` returned.
            config: How often checkpoints are written, and how many are kept.
        """
        self._plan, self._trainers, self._records, self._config = plan, trainers, records, config
        root, several = out / FOLDER, len(trainers) > 1
        folders = [root / f"group-{number}" if several else root for number in range(len(trainers))]
        self._stores = [Store(folder, about, config.keep) for folder in folders]

    def start(self) -> None:
        """Remove what an earlier run left."""
        for store in self._stores if processes.is_main() else ():
            store.clear()

    def wait(self) -> None:
        """Wait until everything is written; raise InputError if it could not be."""
        for store in self._stores:
            store.wait()

    def save(self, number: int, *, always: bool = False) -> None:
        """Write a checkpoint of a group after an epoch, if one is due.

        Raises:
            InputError: The checkpoint before it could not be written.
        """
        trainer, records = self._trainers[number], self._records
        due = self._config.is_due(trainer.epoch, trainer.group.config.num_epochs)
        if not processes.is_main() or not (due or always):
            return
        lanes = trainer.group.lanes
        copies = jax.tree.map(np.array, trainer.state)  # the next epoch writes into these arrays
        arrays = flatten(copies, "state") | flatten(records.to_arrays(lanes), "lanes")
        arrays["pruned_at"] = records.pruned_at.copy()
        about = {
            "rung": records.rung,
            "lane_epochs": trainer.lane_epochs,
            "compile_seconds": trainer.compile_seconds,
            "epoch_seconds": trainer.epoch_seconds,
            "batch_parts": trainer.batch_parts,
        }
        score = float(records.latest(records.score, lanes)[0]) if self._plan.num_lanes == 1 else None
        self._stores[number].save(trainer.epoch, arrays, about, score)

    def load(self) -> None:
        """Restore each group from its newest intact checkpoint; one that has none starts at the beginning.

        Raises:
            InputError: A checkpoint belongs to another run, or all of a group's are damaged.
        """
        for number, store in enumerate(self._stores):
            kept = store.load()
            if kept is not None:
                self._restore(self._trainers[number], kept)
            elif processes.is_main():
                store.clear()

    def _restore(self, trainer: GroupTrainer, kept: Checkpoint) -> None:
        lanes, records = trainer.group.lanes, self._records
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((len(lanes), *x.shape), x.dtype), state_shapes(self._plan, trainer.group)
        )
        before, now = kept.about["batch_parts"], trainer.batch_parts
        if before != now:
            _logger.warning("%d devices shared each batch, and now %d do: results are equal to rounding", before, now)
        trainer.state = jax.tree.map(np.array, unflatten(shapes, kept.arrays, "state"))
        trainer.epoch, trainer.lane_epochs = kept.epoch, kept.about["lane_epochs"]
        trainer.compile_seconds += kept.about["compile_seconds"]
        trainer.epoch_seconds = list(kept.about["epoch_seconds"])
        prefix = "lanes."
        results = {name.removeprefix(prefix): x for name, x in kept.arrays.items() if name.startswith(prefix)}
        records.from_arrays(lanes, results)
        # The checkpoint of another group may be from before the last rung, or from after it.
        records.pruned_at = np.maximum(records.pruned_at, kept.arrays["pruned_at"])
        records.rung = max(records.rung, kept.about["rung"])
