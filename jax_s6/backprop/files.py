"""The files of Part 1, which are written all together or not at all."""

import csv
import tempfile
from pathlib import Path

import numpy as np

from jax_s6.backprop.experiment import BackpropConfig
from jax_s6.backprop.network import COLUMNS
from jax_s6.backprop.pictures import draw_graph
from jax_s6.backprop.workbook import write_workbook
from jax_s6.errors import InputError


def refuse_existing(config: BackpropConfig) -> None:
    """Raise InputError if the output folder already has results that may not be replaced."""
    found = sorted(config.out.glob("backprop.*"))
    if found and not config.overwrite:
        raise InputError(f"out already holds {found[0]}; give another --out, or --overwrite to replace what is there")


def write_files(sheets: np.ndarray, config: BackpropConfig) -> list[Path]:
    """Write backprop.csv, backprop.png and backprop.xlsx into the output folder, and return their paths."""
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".backprop-", dir=config.out) as folder:
        scratch = Path(folder)
        write_csv(scratch / "backprop.csv", sheets, config)
        draw_graph(sheets, config).savefig(scratch / "backprop.png", dpi=200)
        write_workbook(scratch / "backprop.xlsx", sheets, config)
        return [path.replace(config.out / path.name) for path in sorted(scratch.iterdir())]


def write_csv(path: Path, sheets: np.ndarray, config: BackpropConfig) -> None:
    """Write one line per learning rate and iteration, with all digits of every number."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["learning_rate", "iteration", *COLUMNS])
        for learning_rate, sheet in zip(config.learning_rates, sheets.tolist(), strict=True):
            writer.writerows([learning_rate, iteration, *row] for iteration, row in enumerate(sheet))
