"""A finished sweep: its rows, its summary, its variables, and which lane is best."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jax_s6.data import Dataset
from jax_s6.errors import InputError
from jax_s6.network import net as model
from jax_s6.runs.environment import environment
from jax_s6.runs.records import Records
from jax_s6.settings import flatten
from jax_s6.training import plan as grids
from jax_s6.training.lanes import GroupTrainer
from jax_s6.training.plan import Plan


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        rows: A row a lane, what ``sweep.csv`` holds: its settings, results at its final epoch, ``diverged_at``.
        history: A row a lane and epoch, what ``history.csv`` holds.
        summary: What ``summary.json`` holds.
        variables: A group's ``{"params": ..., "batch_stats": ...}`` joined over groups, NumPy arrays ``[lanes, ...]``.
    """

    rows: list[dict[str, Any]]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    variables: dict[str, Any]

    def to_pandas(self) -> Any:
        """Returns ``rows`` as a ``pandas.DataFrame``, indexed by lane.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InputError("to_pandas needs pandas: pip install pandas, or use rows") from None
        return pandas.DataFrame(self.rows).set_index("lane")


def make_result(
    plan: Plan, trainers: list[GroupTrainer], records: Records, dataset: Dataset, pruned: bool
) -> SweepResult:
    """Collects what a sweep leaves."""
    rows, history = to_rows(plan, records, pruned)
    return SweepResult(rows, history, _summary(plan, trainers, records, rows, dataset), _variables(trainers))


def judge(records: Records) -> str:
    """Names the metric that lanes are compared by: of the held-out images where there are any."""
    return "validation_accuracy" if "validation_accuracy" in records.metrics else "test_accuracy"


def best_lane(records: Records) -> int:
    """Finds the lane that is best at its last epoch, of those that were not dropped."""
    lanes = np.flatnonzero((records.epochs > 0) & (records.pruned_at == 0))
    return int(lanes[ranking(records, lanes)[0]])


def ranking(records: Records, lanes: np.ndarray) -> np.ndarray:
    """Returns the places of lanes from best to worst."""
    split = judge(records).removesuffix("_accuracy")
    accuracy, loss = (records.latest(f"{split}_{kind}", lanes) for kind in ("accuracy", "loss"))
    return grids.ranking(accuracy, loss, records.diverged_at[lanes] >= 0)


def to_rows(plan: Plan, records: Records, pruned: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns a row a lane, and a row a lane and epoch; None is an empty cell."""
    rows, history = [], []
    for lane in range(plan.num_lanes):
        settings, last = plan.settings(lane), int(records.epochs[lane])
        epochs = {name: values[lane, :last].tolist() for name, values in records.metrics.items()}
        row: dict[str, Any] = {"lane": lane, "learning_rate": settings["learning_rate"], "seed": settings["seed"]}
        row |= settings
        row |= {name: epochs[name][-1] for name in ("train_loss", "test_loss", "test_accuracy")}
        row["best_test_accuracy"] = max(epochs["test_accuracy"])
        row |= {name: values[-1] for name, values in epochs.items() if name.startswith("validation_")}
        row["diverged_at"] = int(records.diverged_at[lane]) if records.diverged_at[lane] >= 0 else None
        if pruned:
            row["pruned_at"] = int(records.pruned_at[lane]) or None
        rows.append(row)
        for epoch in range(last):
            history.append({"lane": lane, "epoch": epoch + 1, **{name: v[epoch] for name, v in epochs.items()}})
    return rows, history


def _variables(trainers: list[GroupTrainer]) -> dict[str, Any]:
    """Joins the groups' variables in the order of the lanes."""
    parts = [{"params": t.state.params, "batch_stats": t.state.batch_stats} for t in trainers if t.state is not None]
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([trainer.group.lanes for trainer in trainers]))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[order], *parts)


def _summary(
    plan: Plan, trainers: list[GroupTrainer], records: Records, rows: list[dict[str, Any]], dataset: Dataset
) -> dict[str, Any]:
    """Collects what ``summary.json`` holds."""
    best, train_seconds = best_lane(records), sum(trainer.train_seconds for trainer in trainers)
    images = sum(trainer.lane_epochs * trainer.images_per_epoch for trainer in trainers)
    groups = [
        {
            "lanes": len(t.group.lanes),
            "settings": {name: flatten(t.group.config)[name] for name in grids.STATIC},
            "devices": len(t.arrangement.devices),
            "batch_split_over": len(t.arrangement.devices) // t.arrangement.lane_devices,
            "width": t.arrangement.width,
            "compile_seconds": t.compile_seconds,
            "train_seconds": t.train_seconds,
        }
        for t in trainers
    ]
    return {
        "num_lanes": plan.num_lanes,
        "grid": plan.grid,
        "best_lane": rows[best],
        "best_lane_judged_by": judge(records),
        "groups": groups,
        "devices": max(group["devices"] for group in groups),
        "width": max(group["width"] for group in groups),
        "model_images_per_second": images / train_seconds if train_seconds else None,
        "compile_seconds": sum(trainer.compile_seconds for trainer in trainers),
        "train_seconds": train_seconds,
        "num_diverged": int((records.diverged_at >= 0).sum()),
        "num_params": model.NUM_PARAMS,
        "data_checksum": dataset.checksum,
        **environment(),
        "config": dataclasses.asdict(plan.config),
    }
