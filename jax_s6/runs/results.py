"""What every finished run leaves: its weights and settings, and what all summaries have in common."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_s6.config import TrainConfig, to_json
from jax_s6.network import weights
from jax_s6.network.net import NUM_PARAMS
from jax_s6.runs.engine import Run
from jax_s6.runs.environment import environment
from jax_s6.runs.files import replacing, write_json, write_text


def join_variables(run: Run) -> dict[str, Any]:
    """Return ``{"params": ..., "batch_stats": ...}``, NumPy arrays ``[lanes, ...]``, in the order of the lanes."""
    states = [trainer.state for trainer in run.trainers if trainer.state is not None]
    parts = [{"params": state.params, "batch_stats": state.batch_stats} for state in states]
    order = np.argsort(np.concatenate([trainer.group.lanes for trainer in run.trainers]))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[order], *parts)


def common_summary(run: Run) -> dict[str, Any]:
    """Return the part of ``summary.json`` that a single run and a sweep have in common."""
    return {
        "num_params": NUM_PARAMS,
        "compile_seconds": sum(trainer.compile_seconds for trainer in run.trainers),
        "train_seconds": sum(sum(trainer.epoch_seconds) for trainer in run.trainers),
        "data_checksum": run.dataset.checksum,
        **environment(),
        "config": dataclasses.asdict(run.plan.config),
    }


def images_per_second(run: Run) -> float | None:
    """Return the number of images that all lanes together were trained on per second of training and evaluation."""
    seconds = sum(sum(trainer.epoch_seconds) for trainer in run.trainers)
    images = sum(trainer.lane_epochs * trainer.images_per_epoch for trainer in run.trainers)
    return images / seconds if seconds else None


def write_network(out: Path, config: TrainConfig, variables: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write one lane's settings and weights, for ``predict``, ``export`` and ``report``."""
    write_text(out / "config.json", to_json(config))
    with replacing(out / "params.safetensors") as part:
        weights.save(part, variables, metadata)


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``. It must be the last file: a folder with a summary holds a finished run."""
    write_json(out / "summary.json", summary)
