"""Event files for TensorBoard: scalars, images and hyper-parameters, written by tensorboardX without TensorFlow."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_s6.data import Dataset

FOLDER = "tensorboard"
"""The folder of the events within a run's folder; ``tensorboard --logdir runs`` finds the events of all runs."""
NUM_MISTAKES = 25
Rows = Sequence[Mapping[str, Any]]
_ZOOM = 16  # TensorBoard blurs small images when it enlarges them


def write_run(
    out: Path, history: Rows, variables: Mapping[str, Any], dataset: Dataset, probabilities: np.ndarray
) -> None:
    """Write a finished run's events into ``out / "tensorboard"``.

    Args:
        out: The run's folder.
        history: One row per epoch, with ``epoch`` from 1; its numbers become scalars such as ``loss/test``.
        variables: ``{"params": ..., "batch_stats": ...}``; the first layer's filters become an image.
        dataset: The data that the network was trained on.
        probabilities: float32 ``[n, 16]``, the predictions for the n test images; the mistakes with the highest
            probability become an image.
    """
    with _open(out / FOLDER) as writer:
        _add_scalars(writer, history)
        step = int(history[-1]["epoch"])
        writer.add_image("filters/conv1", filter_image(variables), step, dataformats="HW")
        mistakes = mistake_image(probabilities, dataset)
        if mistakes is not None:
            writer.add_image("mistakes/most_confident", mistakes, step, dataformats="HW")


def write_sweep(out: Path, rows: Rows, history: Rows, varied: Sequence[str]) -> None:
    """Write a finished sweep's events into one folder per lane in ``out / "tensorboard"``, for the HParams plugin.

    Args:
        out: The sweep's folder.
        rows: One row per lane, as in ``sweep.csv``.
        history: One row per lane and epoch.
        varied: The names of the settings that differ between lanes.
    """
    from tensorboardX.summary import hparams

    epochs = defaultdict(list)
    for row in history:
        epochs[row["lane"]].append(row)
    for row in rows:
        metrics = {f"final/{name}": float(row[name]) for name in ("test_accuracy", "test_loss")}
        with _open(out / FOLDER / f"lane-{row['lane']:05d}") as writer:
            _add_scalars(writer, epochs[row["lane"]])
            for part in hparams({name: row[name] for name in varied}, metrics):
                writer.file_writer.add_summary(part)
            for name, value in metrics.items():
                writer.add_scalar(name, value, len(epochs[row["lane"]]))


def filter_image(variables: Mapping[str, Any]) -> np.ndarray:
    """Tile the first layer's 16 filters as grey levels: uint8 ``[height, width]``, where 128 stands for zero."""
    kernel = np.asarray(variables["params"]["conv1"]["conv_0"]["kernel"])[:, :, 0].transpose(2, 0, 1)
    grey = np.round(127.5 + 127.5 * kernel / max(float(np.abs(kernel).max()), 1e-12)).astype(np.uint8)
    return _tile(grey, 4, _ZOOM)


def mistake_image(probabilities: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """Tile the test images with the most confident mistakes: uint8 ``[height, width]``; None if there are none."""
    wrong = np.flatnonzero(probabilities.argmax(1) != dataset.test_labels)
    chosen = wrong[np.argsort(-probabilities.max(1)[wrong], kind="stable")][:NUM_MISTAKES]
    return _tile(dataset.test_images[chosen, ..., 0], 5, 3) if len(chosen) else None


def _tile(images: np.ndarray, columns: int, zoom: int) -> np.ndarray:
    """Place images ``[n, height, width]`` in a grid with lines of one pixel between them, and enlarge it."""
    count, height, width = images.shape
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height + 1, width + 1), np.uint8)
    cells[:count, :-1, :-1] = images
    grid = cells.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2).reshape(rows * (height + 1), -1)
    return grid[:-1, :-1].repeat(zoom, 0).repeat(zoom, 1)


def _open(folder: Path) -> Any:
    """Open a writer on a folder, after removing the events of an earlier run that is being replaced."""
    from tensorboardX import SummaryWriter

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(str(folder))


def _add_scalars(writer: Any, history: Rows) -> None:
    """Add ``loss/train``, ``accuracy/test`` and so on, with one point per epoch."""
    for row in history:
        for name, value in row.items():
            split, _, kind = name.rpartition("_")
            if kind in ("loss", "accuracy") and value is not None:
                writer.add_scalar(f"{kind}/{split}", float(value), int(row["epoch"]))
