"""The settings of Part 1, checked when they are made, and the numbers that they lead to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jax_s6.backprop.network import INPUTS, WEIGHTS, descend
from jax_s6.errors import InputError

MAX_LEARNING_RATE = 1000.0  # far into saturation, yet no sum reaches -709, where the EXP of a spreadsheet overflows
MAX_LEARNING_RATES = 10  # more lines than that cannot be told apart in a graph
MAX_ITERATIONS = 5_000  # with six learning rates this takes about a minute, nearly all of it for the workbook


@dataclass(frozen=True, kw_only=True)
class BackpropConfig:
    """Train a 2-2-2 sigmoid network by backpropagation at several learning rates.

    Prints the error at each iteration. Writes all numbers (CSV), a graph of the error, and a spreadsheet of formulas.
    """

    learning_rates: tuple[float, ...] = (0.1, 0.2, 0.5, 0.8, 1.0, 2.0)
    """The 1 to 10 learning rates to compare, each > 0 and <= 1000. Each is a line in the graph and a workbook tab."""
    targets: Annotated[tuple[float, ...], tyro.conf.arg(metavar="T1 T2")] = (0.5, 0.5)
    """The values that the two outputs should take, each in [0, 1]."""
    num_iterations: int = 67
    """Number of updates of the weights, 0 to 5000. Iteration 0 is the state before the first update."""
    out: Path = Path("runs/backprop")
    """Folder for backprop.csv, backprop.png and backprop.xlsx."""
    explain: bool = False
    """Also print each step of iteration 0, forward and backward, with its formula and its numbers."""
    overwrite: bool = False
    """Replace the backprop files that are already in the folder."""

    def __post_init__(self) -> None:
        """Raises InputError for values that cannot be drawn or reached by a sigmoid, or cannot name a tab."""
        rates, targets, n = self.learning_rates, self.targets, self.num_iterations
        if not 1 <= len(rates) <= MAX_LEARNING_RATES:
            raise InputError(f"learning_rates takes 1 to {MAX_LEARNING_RATES} rates, got {len(rates)}")
        for rate in rates:
            if not 0 < rate <= MAX_LEARNING_RATE:
                raise InputError(f"learning_rates must be > 0 and <= {MAX_LEARNING_RATE:g}, got {rate!r}")
        if len(set(rates)) < len(rates):
            listed = " ".join(map(repr, rates))
            raise InputError(f"learning_rates must differ, because each names a tab of the workbook, got {listed}")
        if len(targets) != 2:
            raise InputError(f"targets takes 2 numbers, one per output, got {len(targets)}")
        for target in targets:
            if not 0 <= target <= 1:
                raise InputError(f"targets must be >= 0 and <= 1, as the outputs of a sigmoid are, got {target!r}")
        if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= MAX_ITERATIONS:
            raise InputError(f"num_iterations must be a whole number from 0 to {MAX_ITERATIONS}, got {n!r}")


def compute_sheets(config: BackpropConfig) -> np.ndarray:
    """Train the network at every learning rate.

    Returns:
        float64 [rates, num_iterations + 1, len(COLUMNS)]: one sheet per learning rate, with one row per iteration.
    """
    with jax.enable_x64(True):  # only here: the rest of the package computes in float32
        numbers = (config.learning_rates, WEIGHTS, INPUTS, config.targets)
        problem = (jnp.array(each, dtype=float) for each in numbers)
        return np.asarray(descend(*problem, num_iterations=config.num_iterations))
