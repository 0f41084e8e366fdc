"""Read the folder of a finished run or sweep: training curves, results, settings and the file of the weights."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax_s6.config import TrainConfig
from jax_s6.errors import InputError
from jax_s6.predict.model import PARAMS_FILE
from jax_s6.settings import flatten, from_mapping, replace

MAX_CURVES = 300
"""Largest number of lanes of a folder whose curves a page holds."""


@dataclass(frozen=True)
class Folder:
    """A finished run or sweep. A run has one lane."""

    name: str
    summary: dict[str, Any]  # summary.json; of a sweep, with the accuracy, epochs and seed of its best lane
    config: TrainConfig  # the settings of the run, or of the sweep's best lane
    lanes: list[dict[str, Any]]  # {"label": ..., "metrics": {"test_loss": [...], ...}}, at most MAX_CURVES
    num_left_out: int  # the number of lanes that are not in ``lanes``
    results: list[dict[str, Any]]  # {"learning_rate", "test_accuracy", "diverged"} of each lane
    params: Path | None  # the file of the weights, if there is one


def read_folder(path: Path) -> Folder:
    """Read the folder of a finished run or sweep.

    Raises:
        InputError: It is no such folder, or it is damaged.
    """
    if not path.is_dir():
        raise InputError(f"dirs {path} {'is not a folder' if path.exists() else 'does not exist'}: give a run's folder")
    if not (path / "summary.json").is_file():
        raise InputError(f"dirs {path} has no summary.json: give the folder of a finished run or sweep")
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        read = _read_sweep if "best_lane" in summary else _read_run
        return read(path, summary, from_mapping(TrainConfig(), summary["config"], f"{path / 'summary.json'}"))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"dirs {path} cannot be read ({reason}): it is damaged, so train it again") from None


def _read_run(path: Path, summary: dict[str, Any], config: TrainConfig) -> Folder:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics = {key: [_round(row[key]) for row in rows] for key in rows[0] if _is_curve(key)}
    diverged = summary.get("diverged_at") is not None
    result = _result(config.optimizer.learning_rate, summary["test_accuracy"], diverged)
    name = path.resolve().name
    return Folder(name, summary, config, [{"label": name, "metrics": metrics}], 0, [result], _params(path))


def _read_sweep(path: Path, summary: dict[str, Any], config: TrainConfig) -> Folder:
    rows, history = (_read_csv(path / f"{file}.csv") for file in ("sweep", "history"))
    if {row["lane"] for row in history} != {row["lane"] for row in rows}:
        raise ValueError("history.csv and sweep.csv have different lanes")
    ranked = sorted(rows, key=lambda row: (row["diverged_at"] != "", -float(row["test_accuracy"])))
    step = max(1.0, len(ranked) / MAX_CURVES)
    chosen = [ranked[int(k * step)] for k in range(min(MAX_CURVES, len(ranked)))]
    metrics: dict[str, dict[str, list[float | None]]] = {row["lane"]: {} for row in chosen}
    for row in history:
        for key in filter(_is_curve, row if row["lane"] in metrics else ()):
            metrics[row["lane"]].setdefault(key, []).append(_round(row[key]))
    lanes = [
        {
            "label": ", ".join(f"{key.replace('_', ' ')} {row[key]}" for key in summary["grid"]),
            "metrics": metrics[row["lane"]],
        }
        for row in sorted(chosen, key=lambda row: int(row["lane"]))
    ]
    results = [_result(row["learning_rate"], row["test_accuracy"], row["diverged_at"] != "") for row in rows]
    best = summary["best_lane"]
    config = replace(config, {key: best[key] for key in flatten(config) if key in best})
    summary = {**summary, **{key: best[key] for key in ("test_accuracy", "num_epochs", "seed")}}
    return Folder(path.resolve().name, summary, config, lanes, len(rows) - len(chosen), results, _params(path))


def _params(path: Path) -> Path | None:
    return path / PARAMS_FILE if (path / PARAMS_FILE).is_file() else None


def _read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _is_curve(column: str) -> bool:
    return column.endswith(("_loss", "_accuracy"))


def _result(learning_rate: Any, accuracy: Any, diverged: bool) -> dict[str, Any]:
    return {"learning_rate": float(learning_rate), "test_accuracy": float(accuracy), "diverged": diverged}


def _round(value: Any) -> float | None:
    """Keep five digits, which are more than a chart shows. JSON has no infinity and no NaN, so these become None."""
    number = float("nan") if value in (None, "") else float(value)
    return float(f"{number:.5g}") if abs(number) < float("inf") else None
