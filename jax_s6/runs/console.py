"""What a run prints: the layer table, one line per epoch and the progress bar."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from jax_s6.network import net as model

console = Console(highlight=False)


def print_layers() -> None:
    """Print each layer's output shape for 28x28 images and its number of parameters."""
    table = Table("block", "layers", "output", "parameters")
    table.columns[3].justify = "right"
    for block, layers, shape, count in model.layer_table():
        table.add_row(block, layers, shape, f"{count:,}")
    table.add_section()
    table.add_row("total", "", "", f"{model.NUM_PARAMS:,}")
    console.print(table)


class Dashboard:
    """A live progress bar in a terminal, and one line per epoch in any output."""

    def __init__(self, num_epochs: int, done: int = 0):
        """Prepare the bar; ``done`` epochs of a resumed run are finished already."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(
            *columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(f"compiling, then epoch {done + 1}", total=num_epochs, completed=done)

    def __enter__(self) -> "Dashboard":
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._progress.stop()

    def epoch_done(self, row: Mapping[str, Any], images_per_second: float) -> None:
        """Advance the bar by one epoch and print that epoch's line."""
        progress = (
            f"loss {row['train_loss']:.4f}, accuracy {row['test_accuracy']:.2%}, {images_per_second:,.0f} images/s"
        )
        self._progress.update(self._task, advance=1, description=progress)
        text = f"epoch {row['epoch']:>3}  train loss {row['train_loss']:.4f}  train {row['train_accuracy']:.2%}"
        if row.get("validation_accuracy") is not None:
            text += f"  validation {row['validation_accuracy']:.2%}"
        text += f"  test loss {row['test_loss']:.4f}  test {row['test_accuracy']:.2%}"
        console.print(f"{text}  {row['seconds']:.1f} s  {images_per_second:,.0f} images/s", soft_wrap=True)
