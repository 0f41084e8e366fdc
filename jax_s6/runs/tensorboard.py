"""Runs and sweeps for TensorBoard, written by tensorboardX, without TensorFlow: scalars, images, hyper-parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_s6.data.dataset import Dataset
from jax_s6.predict.model import Model

FOLDER = "tensorboard"
"""Within a run's folder: ``tensorboard --logdir runs`` finds every run."""
NUM_MISTAKES = 25
_ZOOM = 16  # TensorBoard smooths small images when it enlarges them


def write_run(out: Path, history: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], dataset: Dataset) -> None:
    """Writes a finished run's events into ``out / "tensorboard"``.

    Args:
        out: The run's folder.
        history: A row an epoch, with ``epoch`` from 1; its numbers become scalars such as ``loss/test``.
        variables: ``{"params": ..., "batch_stats": ...}``: the first layer's filters become an image.
        dataset: What it was trained on: the most confident mistakes on its test images become an image.
    """
    with _open(out / FOLDER) as writer:
        _add_scalars(writer, history)
        step = int(history[-1]["epoch"])
        writer.add_image("filters/conv1", filter_image(variables), step, dataformats="HW")
        names = tuple(str(k) for k in range(16))
        mistakes = mistake_image(Model(dict(variables), names, "the run"), dataset)
        if mistakes is not None:
            writer.add_image("mistakes/most_confident", mistakes, step, dataformats="HW")


def write_sweep(
    out: Path, rows: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]], varied: Sequence[str]
) -> None:
    """Writes a finished sweep's events: a folder a lane in ``out / "tensorboard"``, for the HParams plugin.

    Args:
        out: The sweep's folder.
        rows: A row a lane, what ``sweep.csv`` holds.
        history: A row a lane and epoch.
        varied: The settings that differ between lanes.
    """
    epochs: dict[int, list[Mapping[str, Any]]] = {row["lane"]: [] for row in rows}
    for row in history:
        epochs[row["lane"]].append(row)
    for row in rows:
        settings = {name: row[name] for name in varied}
        metrics = {f"final/{name}": float(row[name]) for name in ("test_accuracy", "test_loss")}
        with _open(out / FOLDER / f"lane-{row['lane']:05d}") as writer:
            _add_scalars(writer, epochs[row["lane"]])
            for part in _hparams(settings, metrics):
                writer.file_writer.add_summary(part)  # pyright: ignore[reportOptionalMemberAccess]
            for name, value in metrics.items():
                writer.add_scalar(name, value, len(epochs[row["lane"]]))


def filter_image(variables: Mapping[str, Any]) -> np.ndarray:
    """Tiles the first layer's 16 filters as grey levels: uint8 ``[height, width]``, zero is 128."""
    kernel = np.asarray(variables["params"]["conv1"]["conv_0"]["kernel"])[:, :, 0].transpose(2, 0, 1)
    grey = np.round(127.5 + 127.5 * kernel / max(float(np.abs(kernel).max()), 1e-12)).astype(np.uint8)
    return _tile(grey, 4, _ZOOM)


def mistake_image(network: Model, dataset: Dataset) -> np.ndarray | None:
    """Tiles the most confident mistakes on the test images: uint8 ``[height, width]``, or None if there are none."""
    probabilities = network.predict_proba(dataset.test_images)
    wrong = np.flatnonzero(probabilities.argmax(1) != dataset.test_labels)
    chosen = wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")][:NUM_MISTAKES]
    return _tile(dataset.test_images[chosen, ..., 0], 5, 3) if len(chosen) else None


def _tile(images: np.ndarray, columns: int, zoom: int) -> np.ndarray:
    """Places images in a grid, enlarged, with a line of one pixel of theirs between them."""
    count, height, width = images.shape
    rows = -(-count // columns)
    grid = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1), np.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid.repeat(zoom, 0).repeat(zoom, 1)


def _open(folder: Path) -> Any:
    """Opens a writer on a folder whose earlier events, of a run that is replaced, are removed."""
    from tensorboardX import SummaryWriter

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(str(folder))


def _hparams(settings: Mapping[str, Any], metrics: Mapping[str, float]) -> Any:
    """Makes the plugin's three summaries."""
    from tensorboardX.summary import hparams

    return hparams(dict(settings), dict(metrics))


def _add_scalars(writer: Any, history: Sequence[Mapping[str, Any]]) -> None:
    """Adds ``loss/train``, ``accuracy/test`` and the like, a point an epoch."""
    for row in history:
        for name, value in row.items():
            split, _, kind = name.rpartition("_")
            if kind in ("loss", "accuracy") and value is not None:
                writer.add_scalar(f"{kind}/{split}", float(value), int(row["epoch"]))
