"""What every run prints: the layer table and the progress bar."""

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from jax_s6.network import net
from jax_s6.runs.engine import Listener, Run

console = Console(highlight=False)


def say(text: str) -> None:
    """Print a line, however long, without reading it as markup."""
    console.print(text, soft_wrap=True, markup=False)


def print_layers() -> None:
    """Print each layer's output shape for 28x28 images and its number of parameters."""
    table = Table("block", "layers", "output", "parameters")
    table.columns[3].justify = "right"
    for block, layers, shape, count in net.layer_table():
        table.add_row(block, layers, shape, f"{count:,}")
    table.add_section()
    table.add_row("total", "", "", f"{net.NUM_PARAMS:,}")
    console.print(table)


class ProgressBar(Listener):
    """A live bar over the epochs of all lanes; draws nothing if standard output is not a terminal."""

    def __init__(self, unit: str):
        """Prepare the bar; ``unit`` is what is counted, such as "epochs"."""
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TextColumn(f"{unit},"), TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(),
            TextColumn("left"), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("compiling")

    def __enter__(self) -> "ProgressBar":
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._progress.stop()

    def started(self, run: Run) -> None:
        """Set the length of the bar and what of it is done."""
        total, done = int(run.plan.columns["num_epochs"].sum()), int(run.records.epochs.sum())
        self._progress.update(self._task, total=total, completed=done)

    def lanes_done(self, count: int, images_per_second: float) -> None:
        """Advance by one epoch of a number of lanes."""
        self._progress.update(self._task, advance=count, description=f"{images_per_second:,.0f} images/s")

    def notified(self, text: str) -> None:
        """Print the sentence."""
        say(text)
