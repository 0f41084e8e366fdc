"""The command line of Part 1: ``python -m jax_s6.backprop``."""

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from jax_s6 import cli
from jax_s6.backprop.experiment import BackpropConfig, compute_sheets
from jax_s6.backprop.explanation import explain
from jax_s6.backprop.files import refuse_existing, write_files
from jax_s6.backprop.network import COLUMNS
from jax_s6.errors import InputError


def main() -> None:
    """Run ``python -m jax_s6.backprop``."""
    config = cli.parse(BackpropConfig, prog="python -m jax_s6.backprop")
    try:
        refuse_existing(config)
        sheets = compute_sheets(config)
        paths = write_files(sheets, config)
    except OSError as error:
        reason = f"got {config.out} ({error.strerror})"
        raise InputError(f"out must be a folder that can be written, {reason}; give another --out") from error
    if config.explain:
        print(explain(config.targets, config.learning_rates[0]), end="\n\n")
    print_table(sheets, config)
    print("wrote", ", ".join(map(str, paths)))


def print_table(sheets: np.ndarray, config: BackpropConfig) -> None:
    """Print the total error, with one column per learning rate and one row per iteration, or about 100 rows at most."""
    table = Table("iteration", *(f"rate {rate}" for rate in config.learning_rates), box=box.SIMPLE_HEAD)
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    last = config.num_iterations
    for iteration in sorted({*range(0, last + 1, 1 + last // 100), last}):
        table.add_row(str(iteration), *(f"{value:.8f}" for value in sheets[:, iteration, COLUMNS.index("E")]))
    console = Console()
    # A narrow terminal, or a pipe, which rich takes for 80 columns, must not cut digits.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    title = "Total error E at each iteration and learning rate, targets {} and {}"
    console.print(title.format(*config.targets), highlight=False, soft_wrap=True)
    console.print(table)
