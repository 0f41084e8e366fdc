"""A sweep: ``sweep(config, grid)``, its result and its files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jax_s6 import data
from jax_s6.config import TrainConfig
from jax_s6.errors import InputError
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.runs.engine import Listener, Run
from jax_s6.runs.files import write_csv
from jax_s6.runs.results import common_summary, images_per_second, join_variables, write_network, write_summary
from jax_s6.settings import flatten, replace
from jax_s6.sweep.picture import plot_sweep
from jax_s6.training.plan import DEFAULT_GRID, STATIC, make_plan


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        rows: One row per lane, as in ``sweep.csv``: its settings, the results of its last epoch, ``diverged_at``.
        history: One row per lane and epoch, as in ``history.csv``.
        summary: The contents of ``summary.json``.
        variables: ``{"params": ..., "batch_stats": ...}``, NumPy arrays ``[lanes, ...]``.
    """

    rows: list[dict[str, Any]]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    variables: dict[str, Any]

    def to_pandas(self) -> Any:
        """Return ``rows`` as a ``pandas.DataFrame``, indexed by lane.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InputError("to_pandas needs pandas: pip install pandas, or use rows") from None
        return pandas.DataFrame(self.rows).set_index("lane")


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
) -> SweepResult:
    """Train a network for every combination of a grid's values; on CPU, call ``backend.use_cpu_devices()`` before.

    Args:
        config: The settings that the grid does not name.
        grid: Values by setting, such as ``{"learning_rate": (0.1, 0.2), "seed": range(3)}``; six rates if None.
        dataset: The images; those that ``config.data`` names if None.
        devices: The devices to use; all if None.
        width: Largest number of lanes at once on a device; None: 1 on CPU, and what fits in memory on accelerators.
        prune: Whether to drop the worse half of the lanes after epochs 1, 2, 4, ..., by the held-out images.
        out: A folder for checkpoints, or None.
        resume: Whether to continue from the checkpoints there.
        checkpoints: How often they are written, and how many are kept.
        listener: Is told of the progress.

    Returns:
        The results. On CPU with width 1, each lane equals ``train`` with its settings bit for bit.

    Raises:
        InputError: A setting or the grid cannot be used, or a checkpoint cannot be written or is of another sweep.
    """
    plan = make_plan(config, DEFAULT_GRID if grid is None else grid)
    run = Run(plan, dataset or data.load(config.data), devices=devices, width=width, prune=prune)
    if out is not None:
        run.open(out, checkpoints, resume=resume)
    run.train(listener)
    return make_result(run)


def make_result(run: Run) -> SweepResult:
    """Collect the result of a finished sweep."""
    lanes = range(run.plan.num_lanes)
    rows = [_row(run, lane) for lane in lanes]
    history = [{"lane": lane, **row} for lane in lanes for row in run.records.history(lane)]
    return SweepResult(rows, history, _summary(run, rows), join_variables(run))


def _row(run: Run, lane: int) -> dict[str, Any]:
    """Return a lane's settings and the results of its last epoch; None is an empty cell."""
    settings, records, history = run.plan.settings(lane), run.records, run.records.history(lane)
    row: dict[str, Any] = {"lane": lane, "learning_rate": settings["learning_rate"], "seed": settings["seed"]}
    row |= settings
    row |= {name: history[-1][name] for name in ("train_loss", "test_loss", "test_accuracy")}
    row["best_test_accuracy"] = max(epoch["test_accuracy"] for epoch in history)
    row |= {name: value for name, value in history[-1].items() if name.startswith("validation_")}
    row["diverged_at"] = int(records.diverged_at[lane]) if records.diverged_at[lane] >= 0 else None
    return row | ({"pruned_at": int(records.pruned_at[lane]) or None} if run.prune else {})


def _summary(run: Run, rows: list[dict[str, Any]]) -> dict[str, Any]:
    groups = [
        {
            "lanes": len(trainer.group.lanes),
            "settings": {name: flatten(trainer.group.config)[name] for name in STATIC},
            "devices": len(trainer.arrangement.devices),
            "batch_split_over": trainer.batch_parts,
            "width": trainer.arrangement.width,
            "compile_seconds": trainer.compile_seconds,
            "train_seconds": sum(trainer.epoch_seconds),
        }
        for trainer in run.trainers
    ]
    return {
        "num_lanes": run.plan.num_lanes,
        "grid": run.plan.grid,
        "best_lane": rows[run.records.best_lane()],
        "best_lane_judged_by": run.records.score,
        "groups": groups,
        "devices": max(group["devices"] for group in groups),
        "width": max(group["width"] for group in groups),
        "model_images_per_second": images_per_second(run),
        "num_diverged": int((run.records.diverged_at >= 0).sum()),
        **common_summary(run),
    }


def write_sweep(out: Path, run: Run, result: SweepResult) -> None:
    """Write a sweep's files into its folder, with the best lane's settings and weights; the summary last."""
    best = result.summary["best_lane"]["lane"]
    variables = jax.tree.map(lambda x: x[best], result.variables)
    write_network(out, replace(run.plan.config, run.plan.settings(best)), variables, {"lane": str(best)})
    write_csv(out / "sweep.csv", result.rows)
    write_csv(out / "history.csv", result.history)
    plot_sweep(out / "sweep.png", result.rows, result.history, run.plan.grid)
    write_summary(out, result.summary)
