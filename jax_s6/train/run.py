"""A single run, which is a plan with one lane: ``train(config, dataset)``, its result and its files."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from jax_s6 import backend
from jax_s6.config import TrainConfig
from jax_s6.data import Dataset
from jax_s6.errors import InputError
from jax_s6.runs.engine import Listener, Run
from jax_s6.runs.files import write_json_lines
from jax_s6.runs.results import common_summary, images_per_second, join_variables, write_network, write_summary
from jax_s6.train.curves import plot_curves
from jax_s6.training.plan import make_plan


class TrainResult(NamedTuple):
    """A finished run.

    Attributes:
        variables: ``{"params": ..., "batch_stats": ...}``, NumPy arrays.
        history: One row per epoch: ``epoch`` from 1, losses, accuracies, ``seconds``.
        summary: The contents of ``summary.json``.
    """

    variables: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]


def make_run(config: TrainConfig, dataset: Dataset, num_devices: int | None = None) -> Run:
    """Prepare a single run; nothing is compiled.

    Args:
        config: The settings.
        dataset: The images.
        num_devices: Number of devices that share each batch. If None: one accelerator, or as many CPU devices as get
            at least ``backend.MIN_PART`` images of each batch.

    Raises:
        InputError: The settings do not fit the data or the devices.
    """
    devices = None if num_devices is None else backend.first_devices(num_devices)
    if num_devices and config.batch_size % num_devices:
        raise InputError(f"devices must divide the batch_size {config.batch_size}, got {num_devices}")
    return Run(make_plan(config, {}), dataset, devices=devices)


def train(
    config: TrainConfig,
    dataset: Dataset,
    *,
    num_devices: int | None = None,
    listener: Listener | None = None,
    check_nans: bool = False,
) -> TrainResult:
    """Train one network.

    Args:
        config: The settings.
        dataset: The images; the last ``config.data.holdout`` training images are kept for validation.
        num_devices: Number of devices that share each batch; chosen by platform if None.
        listener: Is told of the progress.
        check_nans: Whether to stop after an epoch whose loss is not finite; the network is frozen there otherwise.

    Returns:
        The run. Accuracies are fractions of all images of a split; ``train_*`` are averages over the epoch, in which
        the parameters change.

    Raises:
        InputError: The settings do not fit the data, or ``check_nans`` found something.
    """
    run = make_run(config, dataset, num_devices)
    run.train(listener, check_nans=check_nans)
    return make_result(run)


def make_result(run: Run) -> TrainResult:
    """Collect the result of a finished run."""
    config, trainer, diverged_at = run.plan.config, run.trainers[0], int(run.records.diverged_at[0])
    rows = zip(run.records.history(0), trainer.epoch_seconds, strict=True)
    history = [{**row, "seconds": seconds} for row, seconds in rows]
    last, best = history[-1], max(history, key=lambda row: row["test_accuracy"])
    summary = {
        "recipe": config.recipe,
        "seed": config.seed,
        "num_epochs": config.num_epochs,
        "batch_size": config.batch_size,
        **{name: value for name, value in last.items() if name not in ("epoch", "seconds")},
        "best_test_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        "diverged_at": diverged_at if diverged_at >= 0 else None,
        "images_per_second": images_per_second(run),
        **common_summary(run),
    }
    return TrainResult(jax.tree.map(lambda x: x[0], join_variables(run)), history, summary)


def write_run(out: Path, config: TrainConfig, result: TrainResult) -> None:
    """Write a run's files into its folder, the summary last."""
    metadata = {"recipe": config.recipe, "seed": str(config.seed)}
    write_network(out, config, result.variables, metadata)
    write_json_lines(out / "metrics.jsonl", result.history)
    plot_curves(out / "curves.png", result.history, f"recipe {config.recipe}, seed {config.seed}")
    write_summary(out, result.summary)
