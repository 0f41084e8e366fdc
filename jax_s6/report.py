"""What a run shows and leaves behind: console, metrics files, pictures. Computes nothing."""

import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from jax_s6 import backend, model
from jax_s6.config import TrainConfig
from jax_s6.errors import InputError

GOAL = 0.994
MAX_PARAMS, MAX_EPOCHS = 20_000, 20
console = Console(highlight=False)


def print_layers() -> None:
    """Prints the layer table: output shape on 28x28 images, and parameters."""
    table = Table("block", "layers", "output", "parameters")
    table.columns[3].justify = "right"
    for block, layers, shape, count in model.layer_table():
        table.add_row(block, layers, shape, f"{count:,}")
    table.add_section()
    table.add_row("total", "", "", f"{model.NUM_PARAMS:,}")
    console.print(table)


class Dashboard:
    """A live bar for the terminal; nothing where standard output is not one. Its methods may be called from the run."""

    def __init__(self, num_epochs: int, done: int = 0):
        """Lays out the bar, for a run that has ``done`` some of its epochs before."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(
            *columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(f"compiling, then epoch {done + 1}", total=num_epochs, completed=done)

    def __enter__(self) -> "Dashboard":
        """Starts drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wipes the bar."""
        self._progress.stop()

    def epoch_done(self, row: Mapping[str, Any], images_per_second: float) -> None:
        """Advances by an epoch and prints its line."""
        progress = (
            f"loss {row['train_loss']:.4f}, accuracy {row['test_accuracy']:.2%}, {images_per_second:,.0f} images/s"
        )
        self._progress.update(self._task, advance=1, description=progress)
        text = f"epoch {row['epoch']:>3}  train loss {row['train_loss']:.4f}  train {row['train_accuracy']:.2%}"
        if row.get("validation_accuracy") is not None:
            text += f"  validation {row['validation_accuracy']:.2%}"
        text += f"  test loss {row['test_loss']:.4f}  test {row['test_accuracy']:.2%}"
        console.print(f"{text}  {row['seconds']:.1f} s  {images_per_second:,.0f} images/s", soft_wrap=True)


def score_card(config: TrainConfig, summary: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Lists the assignment's requirements, what the run has, and whether it is met, judged by the final epoch."""
    rates = (config.model.dropout_conv1, config.model.dropout_conv2, config.model.dropout_conv3)
    dropout = f"rates {', '.join(f'{rate:g}' for rate in rates)}"
    return [
        ("parameters < 20,000", f"{summary['num_params']:,}", summary["num_params"] < MAX_PARAMS),
        ("epochs < 20", f"{summary['num_epochs']}", summary["num_epochs"] < MAX_EPOCHS),
        ("final test accuracy >= 99.4 %", f"{summary['test_accuracy']:.2%}", summary["test_accuracy"] >= GOAL),
        ("batch normalisation", "after each of 6 convolutions", True),
        ("dropout", dropout, config.model.uses_dropout),
        ("global average pooling", "before the log-softmax", True),
    ]


def print_score_card(config: TrainConfig, summary: Mapping[str, Any]) -> None:
    """Prints the assignment's requirements, each met or not met."""
    table = Table("the assignment asks", "this run", "")
    for asked, got, met in score_card(config, summary):
        table.add_row(asked, got, "[green]met[/]" if met else "[red]not met[/]")
    console.print(table)


def environment() -> dict[str, Any]:
    """Describes versions, device and machine."""
    device = jax.devices()[0]
    packages = ("jax_s6", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {"python": platform.python_version(), **{name: _version(name) for name in packages}}
    flags = backend.cpu_flags()
    return {
        "versions": versions,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "machine": {
            "system": platform.platform(),
            "cores": backend.cores(),
            "vector_units": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        },
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # this one, run from its source
        return "not installed"


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raises InputError if ``out`` holds a finished run, unless it may be overwritten."""
    if os.path.exists(out / "summary.json") and not overwrite:
        raise InputError(f"out {out} holds a run already: give another --out, or --overwrite to replace it")


def make_folder(out: Path) -> None:
    """Makes the output folder.

    Raises:
        InputError: It cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"out {out} cannot be written to ({error.strerror}): give another folder to --out") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``, which takes its place when all is written, and not before."""
    part = path.with_name(f".{path.stem}.part{os.getpid()}{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): free the disk or give another place") from None
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON, indented."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def plot_curves(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draws loss and accuracy against epochs."""
    from matplotlib.figure import Figure  # 0.4 s to import, needed once at the end

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    judged = [("test", "C0"), *([("validation", "C2")] if rows[0].get("validation_accuracy") is not None else [])]
    for name, colour in (("train", "C1"), *judged):
        left.plot(epochs, [row[f"{name}_loss"] for row in rows], f"{colour}.-", label=name)
        right.plot(epochs, [100 * row[f"{name}_accuracy"] for row in rows], f"{colour}.-", label=name)
    left.set(xlabel="epoch", ylabel="cross-entropy", yscale="log", title=title)
    final = 100 * rows[-1]["test_accuracy"]
    right.axhline(100 * GOAL, color="grey", linestyle="--", linewidth=1, label="asked: 99.4 %")
    names = ("train", *(name for name, _ in judged))
    lowest = min(min(100 * row[f"{name}_accuracy"] for name in names) for row in rows[len(rows) // 4 :])
    right.set(xlabel="epoch", ylabel="accuracy, %", title=f"final test accuracy {final:.2f} %")
    right.set_ylim(min(98.0, lowest - 0.1), 100)
    for axis, corner in ((left, "upper right"), (right, "upper left")):  # losses fall, accuracies rise
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(alpha=0.3)
        axis.legend(loc=corner)
    with replacing(path) as part:
        figure.savefig(part)


if __name__ == "__main__":
    from jax_s6 import cli, report_page

    cli.run(report_page.main)
