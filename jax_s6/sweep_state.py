"""What a sweep knows so far, and the files that let a killed sweep go on: one a group, replaced after each epoch.

A file holds its group's states, results and number of epochs, and so is right by itself; which lanes were dropped
follows from the results. Arrays only (safetensors): nothing that could run code is read.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jax_s6 import distributed, report
from jax_s6.errors import InputError
from jax_s6.grid import Plan
from jax_s6.lanes import GroupTrainer, state_shapes

FOLDER = "resume"


class Records:
    """Every lane's results by epoch.

    Attributes:
        metrics: float64 ``[lanes, epochs]`` by name: ``train_loss``, ``test_accuracy``, ...
        epochs: int ``[lanes]``, how many of them are filled.
        diverged_at: int ``[lanes]``, a step, or -1.
        pruned_at: int ``[lanes]``, the epoch after which a lane was dropped, or 0.
    """

    def __init__(self, plan: Plan, holdout: int):
        """Makes room."""
        splits = ("train", "test", *(["validation"] if holdout else []))
        shape = (plan.num_lanes, plan.num_epochs)
        self.metrics = {f"{split}_{kind}": np.full(shape, np.nan) for split in splits for kind in ("loss", "accuracy")}
        self.epochs = np.zeros(plan.num_lanes, np.int64)
        self.diverged_at = np.full(plan.num_lanes, -1, np.int64)
        self.pruned_at = np.zeros(plan.num_lanes, np.int64)

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


def fingerprint(plan: Plan, checksum: str, prune: bool) -> dict[str, str]:
    """Returns what must be the same when a sweep goes on: settings, grid and data."""
    settings = dataclasses.asdict(plan.config)
    del settings["data"]["data_dir"]  # the images count, not where they lie
    return {
        "settings": json.dumps(settings, sort_keys=True),
        "grid": json.dumps(plan.grid),
        "data": checksum,
        "prune": str(prune),
    }


class Store:
    """A sweep's folder of resumable states."""

    def __init__(self, out: Path, plan: Plan, identity: dict[str, str]):
        """Names the folder; ``start`` makes it."""
        self.folder, self._plan, self._identity = out / FOLDER, plan, identity

    def start(self) -> None:
        """Makes the folder, empty."""
        if distributed.is_main():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)

    def save(self, number: int, trainer: GroupTrainer, records: Records) -> None:
        """Replaces a group's file by one that holds the epoch just trained."""
        if not distributed.is_main():
            return
        lanes = trainer.group.lanes
        arrays = {f"state.{i}": np.ascontiguousarray(x) for i, x in enumerate(jax.tree.leaves(trainer.state))}
        arrays |= {f"metrics.{name}": values[lanes] for name, values in records.metrics.items()}
        arrays |= {"epochs": records.epochs[lanes], "diverged_at": records.diverged_at[lanes]}
        counts = {"epoch": trainer.epoch, "lane_epochs": trainer.lane_epochs}
        spent = {"compile_seconds": trainer.compile_seconds, "train_seconds": trainer.train_seconds}
        about = {name: repr(value) for name, value in (counts | spent).items()}
        with report.replacing(self.folder / f"group-{number}.safetensors") as part:
            save_file(arrays, part, metadata=self._identity | about)

    def load(self, number: int, trainer: GroupTrainer, records: Records) -> None:
        """Takes up a group where its file left it; without a file it starts from the beginning.

        Raises:
            InputError: The file is damaged, or of a sweep with other settings, grid or data.
        """
        path = self.folder / f"group-{number}.safetensors"
        if not path.exists():
            return
        try:
            with safe_open(path, framework="np") as file:
                about = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is not a dict
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read ({error}): start again with --overwrite") from None
        for name, value in self._identity.items():
            if about.get(name) != value:
                raise InputError(
                    f"{path} is of a sweep with other {name}: resume with what it was started with, or --overwrite"
                )
        try:
            self._restore(arrays, about, trainer, records)
        except (KeyError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): start again with --overwrite") from None

    def _restore(
        self, arrays: dict[str, np.ndarray], about: dict[str, str], trainer: GroupTrainer, records: Records
    ) -> None:
        lanes = trainer.group.lanes
        leaves, tree = jax.tree.flatten(state_shapes(self._plan, trainer.group))
        restored = [arrays[f"state.{i}"] for i in range(len(leaves))]
        for array, leaf in zip(restored, leaves, strict=True):
            if array.shape != (len(lanes), *leaf.shape) or array.dtype != leaf.dtype:
                raise ValueError(f"a state is {array.dtype}{array.shape} instead of {leaf.dtype}{leaf.shape} a lane")
        trainer.state = jax.tree.unflatten(tree, restored)
        trainer.epoch, trainer.lane_epochs = int(about["epoch"]), int(about["lane_epochs"])
        trainer.compile_seconds += float(about["compile_seconds"])
        trainer.train_seconds = float(about["train_seconds"])
        for name, values in records.metrics.items():
            values[lanes] = arrays[f"metrics.{name}"]
        records.epochs[lanes], records.diverged_at[lanes] = arrays["epochs"], arrays["diverged_at"]
