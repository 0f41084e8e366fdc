"""The folders of runs and sweeps, read back: curves, results and settings of what has finished. Draws nothing."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax_s6 import config as configs
from jax_s6.config import TrainConfig
from jax_s6.errors import InputError
from jax_s6.predict.model import PARAMS_FILE
from jax_s6.settings import replace

MAX_CURVES = 300
"""The most lanes whose curves a page holds."""


@dataclass(frozen=True)
class Folder:
    """What is known of a run or a sweep.

    Attributes:
        name: The folder's.
        summary: Its ``summary.json``.
        config: The run's settings, or those of the sweep's best lane.
        lanes: ``{"label": ..., "metrics": {"test_loss": [...], ...}}`` each, at most ``MAX_CURVES``.
        num_left_out: Lanes without a curve.
        results: ``{"learning_rate", "test_accuracy", "diverged"}`` of each lane.
        params: The weights' file, or None.
    """

    name: str
    summary: dict[str, Any]
    config: TrainConfig
    lanes: list[dict[str, Any]]
    num_left_out: int
    results: list[dict[str, Any]]
    params: Path | None


def read_folder(path: Path) -> Folder:
    """Reads a finished run's or sweep's folder.

    Raises:
        InputError: It is not one, or is damaged.
    """
    if not path.is_dir():
        raise InputError(f"dirs {path} {'is not a folder' if path.exists() else 'does not exist'}: give a run's folder")
    if not (path / "summary.json").is_file():
        raise InputError(f"dirs {path} has no summary.json: give the folder of a finished run or sweep")
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        name = path.resolve().name
        read = _read_sweep if "best_lane" in summary else _read_run
        return read(path, name, summary)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"dirs {path} cannot be read ({reason}): it is damaged, so train it again") from None


def _read_run(path: Path, name: str, summary: dict[str, Any]) -> Folder:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    config = configs.from_json(json.dumps(summary["config"]), f"{path / 'summary.json'}")
    metrics = {key: [_round(row[key]) for row in rows] for key in rows[0] if key.endswith(("_loss", "_accuracy"))}
    diverged = summary.get("diverged_at") is not None
    result = _result(config.optimizer.learning_rate, summary["test_accuracy"], diverged)
    return Folder(name, summary, config, [{"label": name, "metrics": metrics}], 0, [result], _params(path))


def _read_sweep(path: Path, name: str, summary: dict[str, Any]) -> Folder:
    from jax_s6.training import plan as grids

    rows, history = (_read_csv(path / f"{file}.csv") for file in ("sweep", "history"))
    if {row["lane"] for row in history} != {row["lane"] for row in rows}:
        raise ValueError("history.csv and sweep.csv have other lanes")
    varied = list(summary["grid"])
    ranked = sorted(rows, key=lambda row: (row["diverged_at"] != "", -float(row["test_accuracy"])))
    step = max(1.0, len(ranked) / MAX_CURVES)
    chosen = [ranked[int(k * step)] for k in range(min(MAX_CURVES, len(ranked)))]
    metrics: dict[str, dict[str, list[float | None]]] = {row["lane"]: {} for row in chosen}
    for row in history:
        for key, value in row.items() if row["lane"] in metrics else ():
            if key.endswith(("_loss", "_accuracy")):
                metrics[row["lane"]].setdefault(key, []).append(_round(value))
    lanes = [
        {"label": ", ".join(f"{_short(key)} {row[key]}" for key in varied), "metrics": metrics[row["lane"]]}
        for row in sorted(chosen, key=lambda row: int(row["lane"]))
    ]
    results = [_result(row["learning_rate"], row["test_accuracy"], row["diverged_at"] != "") for row in rows]
    base = configs.from_json(json.dumps(summary["config"]), f"{path / 'summary.json'}")
    best = summary["best_lane"]
    config = replace(base, {key: best[key] for key in grids.SETTINGS if key in best})
    summary = {**summary, **{key: best[key] for key in ("test_accuracy", "num_epochs", "seed")}}
    return Folder(name, summary, config, lanes, len(rows) - len(chosen), results, _params(path))


def _params(path: Path) -> Path | None:
    return path / PARAMS_FILE if (path / PARAMS_FILE).is_file() else None


def _read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _result(learning_rate: Any, accuracy: Any, diverged: bool) -> dict[str, Any]:
    return {"learning_rate": float(learning_rate), "test_accuracy": float(accuracy), "diverged": diverged}


def _round(value: Any) -> float | None:
    """Five digits are more than a chart shows; what is not finite has no place in JSON."""
    number = float("nan") if value in (None, "") else float(value)
    return float(f"{number:.5g}") if abs(number) < float("inf") else None


def _short(name: str) -> str:
    return {"learning_rate": "rate"}.get(name, name.replace("_", " "))
