"""Part 1: backpropagation through a 2-2-2 sigmoid network, by hand, and its error graph for several learning rates.

    h1 = w1 i1 + w2 i2    a_h1 = sigmoid(h1)    o1 = w5 a_h1 + w6 a_h2    a_o1 = sigmoid(o1)    E1 = 1/2 (t1 - a_o1)^2
    h2 = w3 i1 + w4 i2    a_h2 = sigmoid(h2)    o2 = w7 a_h1 + w8 a_h2    a_o2 = sigmoid(o2)    E2 = 1/2 (t2 - a_o2)^2

and E = E1 + E2. First come the pure functions, then ``--explain``, then the command and its files. ``workbook.py`` has
the formulas as text, which ``--explain`` prints and the workbook's cells compute with.
"""

import csv
import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from jax_s6 import cli
from jax_s6.backprop.workbook import CHAIN_RULES, FORMULAS, write_workbook
from jax_s6.errors import InputError

INPUTS = (0.05, 0.10)
WEIGHTS = (0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55)

MAX_LEARNING_RATE = 1000.0  # far past saturation, yet no sum reaches -709, where a spreadsheet's EXP overflows
MAX_LEARNING_RATES = 10  # what a legend can tell apart
MAX_ITERATIONS = 5_000  # at six rates about a minute, nearly all of it for the workbook


class Activations(NamedTuple):
    """What the forward pass leaves behind: each unit's sum, and its sigmoid ``a_``."""

    h1: jax.Array
    h2: jax.Array
    a_h1: jax.Array
    a_h2: jax.Array
    o1: jax.Array
    o2: jax.Array
    a_o1: jax.Array
    a_o2: jax.Array


class Deltas(NamedTuple):
    """How E changes with each unit's sum: what the backward pass hands from layer to layer."""

    dE_do1: jax.Array
    dE_do2: jax.Array
    dE_dh1: jax.Array
    dE_dh2: jax.Array


WEIGHT_NAMES = tuple(f"w{k}" for k in range(1, 9))
GRADIENT_NAMES = tuple(f"dE_d{name}" for name in WEIGHT_NAMES)
COLUMNS = (*Activations._fields, "E1", "E2", "E", *WEIGHT_NAMES, *GRADIENT_NAMES)


def forward(weights: jax.Array, inputs: jax.Array) -> Activations:
    """Runs the forward pass.

    Args:
        weights: float [8], w1 to w8.
        inputs: float [2], i1 and i2.

    Returns:
        The sums and the activations of both layers, each a scalar.
    """
    w1, w2, w3, w4, w5, w6, w7, w8 = weights
    i1, i2 = inputs
    h1 = w1 * i1 + w2 * i2
    h2 = w3 * i1 + w4 * i2
    a_h1 = jax.nn.sigmoid(h1)
    a_h2 = jax.nn.sigmoid(h2)
    o1 = w5 * a_h1 + w6 * a_h2
    o2 = w7 * a_h1 + w8 * a_h2
    return Activations(h1, h2, a_h1, a_h2, o1, o2, jax.nn.sigmoid(o1), jax.nn.sigmoid(o2))


def output_errors(activations: Activations, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns E1 = 1/2 (t1 - a_o1)^2 and E2 = 1/2 (t2 - a_o2)^2; ``targets`` is float [2], in [0, 1]."""
    t1, t2 = targets
    return 0.5 * (t1 - activations.a_o1) ** 2, 0.5 * (t2 - activations.a_o2) ** 2


def error(weights: jax.Array, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the total error E = E1 + E2, a scalar; the arguments are those of ``gradients``."""
    e1, e2 = output_errors(forward(weights, inputs), targets)
    return e1 + e2


def deltas(weights: jax.Array, activations: Activations, targets: jax.Array) -> Deltas:
    """Sends the error backwards through the units, with sigmoid'(x) = a (1 - a) where a = sigmoid(x).

    At an output unit, by the chain rule dE/do = dE/da_o * da_o/do::

        dE/do1 = (a_o1 - t1) * a_o1 (1 - a_o1)
        dE/do2 = (a_o2 - t2) * a_o2 (1 - a_o2)

    A hidden unit answers for both outputs, dE/dh = (dE/do1 * do1/da_h + dE/do2 * do2/da_h) * da_h/dh::

        dE/dh1 = (dE/do1 * w5 + dE/do2 * w7) * a_h1 (1 - a_h1)
        dE/dh2 = (dE/do1 * w6 + dE/do2 * w8) * a_h2 (1 - a_h2)

    Args:
        weights: float [8], w1 to w8.
        activations: What ``forward`` returned for these weights.
        targets: float [2], in [0, 1].

    Returns:
        The four derivatives, each a scalar.
    """
    _, _, _, _, w5, w6, w7, w8 = weights
    t1, t2 = targets
    _, _, a_h1, a_h2, _, _, a_o1, a_o2 = activations
    de_do1 = (a_o1 - t1) * a_o1 * (1 - a_o1)
    de_do2 = (a_o2 - t2) * a_o2 * (1 - a_o2)
    de_dh1 = (de_do1 * w5 + de_do2 * w7) * a_h1 * (1 - a_h1)
    # a_h2, not a_h1: w3 and w4 end in h2. Sheets that copy the w1 and w2 columns get this wrong.
    de_dh2 = (de_do1 * w6 + de_do2 * w8) * a_h2 * (1 - a_h2)
    return Deltas(de_do1, de_do2, de_dh1, de_dh2)


def gradients(weights: jax.Array, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Derives E by every weight, by hand; equal to ``jax.grad(error)``.

    A weight's gradient is what leaves it (the delta of the unit that it feeds) times what enters it::

        dE/dw1 = dE/dh1 * i1    dE/dw2 = dE/dh1 * i2    dE/dw5 = dE/do1 * a_h1    dE/dw6 = dE/do1 * a_h2
        dE/dw3 = dE/dh2 * i1    dE/dw4 = dE/dh2 * i2    dE/dw7 = dE/do2 * a_h1    dE/dw8 = dE/do2 * a_h2

    and with the deltas written out::

        dE/dw1 = ((a_o1 - t1) a_o1 (1 - a_o1) w5 + (a_o2 - t2) a_o2 (1 - a_o2) w7) a_h1 (1 - a_h1) i1
        dE/dw2 = ((a_o1 - t1) a_o1 (1 - a_o1) w5 + (a_o2 - t2) a_o2 (1 - a_o2) w7) a_h1 (1 - a_h1) i2
        dE/dw3 = ((a_o1 - t1) a_o1 (1 - a_o1) w6 + (a_o2 - t2) a_o2 (1 - a_o2) w8) a_h2 (1 - a_h2) i1
        dE/dw4 = ((a_o1 - t1) a_o1 (1 - a_o1) w6 + (a_o2 - t2) a_o2 (1 - a_o2) w8) a_h2 (1 - a_h2) i2
        dE/dw5 = (a_o1 - t1) a_o1 (1 - a_o1) a_h1
        dE/dw6 = (a_o1 - t1) a_o1 (1 - a_o1) a_h2
        dE/dw7 = (a_o2 - t2) a_o2 (1 - a_o2) a_h1
        dE/dw8 = (a_o2 - t2) a_o2 (1 - a_o2) a_h2

    Args:
        weights: float [8], w1 to w8.
        inputs: float [2], i1 and i2.
        targets: float [2], in [0, 1].

    Returns:
        float [8], dE/dw1 to dE/dw8.
    """
    i1, i2 = inputs
    activations = forward(weights, inputs)
    d, a_h1, a_h2 = deltas(weights, activations, targets), activations.a_h1, activations.a_h2
    hidden = d.dE_dh1 * i1, d.dE_dh1 * i2, d.dE_dh2 * i1, d.dE_dh2 * i2
    output = d.dE_do1 * a_h1, d.dE_do1 * a_h2, d.dE_do2 * a_h1, d.dE_do2 * a_h2
    return jnp.stack([*hidden, *output])


@functools.partial(jax.jit, static_argnames="num_iterations")
def descend(
    learning_rates: jax.Array, weights: jax.Array, inputs: jax.Array, targets: jax.Array, *, num_iterations: int
) -> jax.Array:
    """Descends the error's gradient at every learning rate at once: w - learning_rate * dE/dw.

    Args:
        learning_rates: float [rates], > 0.
        weights: float [8], w1 to w8 at iteration 0.
        inputs: float [2], i1 and i2.
        targets: float [2], in [0, 1].
        num_iterations: How many updates to make.

    Returns:
        float [rates, num_iterations + 1, len(COLUMNS)]: a sheet per rate; row k is the network after k updates.
    """

    def descend_at(learning_rate: jax.Array) -> jax.Array:
        def step(weights: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            activations, gradient = forward(weights, inputs), gradients(weights, inputs, targets)
            e1, e2 = output_errors(activations, targets)
            row = jnp.concatenate([jnp.stack([*activations, e1, e2, e1 + e2]), weights, gradient])
            return weights - learning_rate * gradient, row

        return jax.lax.scan(step, weights, length=num_iterations + 1)[1]

    return jax.vmap(descend_at)(learning_rates)


HEADINGS: Mapping[str, str] = {  # by the first formula of a step
    "h1": "Forward 1. Hidden units: sums of the weighted inputs, and their sigmoids",
    "o1": "Forward 2. Output units: sums of the weighted hidden activations, and their sigmoids",
    "E1": "Forward 3. Error: half the squared distance to each target",
    "dE_do1": "Backward 1. Error by each output unit's sum; the sigmoid's slope is a * (1 - a)",
    "dE_dw5": "Backward 2. Error by the output weights: the delta of the unit fed, times what enters the weight",
    "dE_dh1": "Backward 3. Error by each hidden unit's sum: what flows back from both outputs, times the slope",
    "dE_dw1": "Backward 4. Error by the hidden weights: the delta of the unit fed, times the input",
}


def explain(targets: Sequence[float], learning_rate: float) -> str:
    """Writes out every step of iteration 0, forward and backward: chain rule, formula, numbers, result.

    Args:
        targets: t1 and t2, in [0, 1].
        learning_rate: The rate of the update that ends the explanation, > 0.

    Returns:
        Lines of plain ASCII text.
    """
    values = _values_at_iteration_0(targets)

    def number(value: float) -> str:
        return f"{value:.8g}" if value >= 0 else f"({value:.8g})"

    def insert(word: re.Match[str]) -> str:
        return number(values[word[0]]) if word[0] in values else word[0]

    def step(name: str) -> str:
        label, formula = name.replace("dE_", "dE/"), FORMULAS[name]
        forms = [CHAIN_RULES[name]] if name in CHAIN_RULES else []
        forms += [formula.replace("dE_", "dE/"), re.sub(r"[A-Za-z]\w*", insert, formula), number(values[name])]
        return f"  {label} = " + f"\n  {' ' * len(label)} = ".join(forms)

    lines = ["Backpropagation at iteration 0, step by step", ""]
    lines += [f"  {name} = {number(values[name])}" for name in ("i1", "i2", "t1", "t2", *WEIGHT_NAMES)]
    for name in FORMULAS:
        lines += ["", HEADINGS[name], ""] if name in HEADINGS else []
        lines.append(step(name))
    lines += ["", f"Update of the weights at learning rate {learning_rate}: w - learning rate * dE/dw", ""]
    for name in WEIGHT_NAMES:
        slope = values[f"dE_d{name}"]
        after = number(values[name] - learning_rate * slope)
        lines.append(f"  {name} = {number(values[name])} - {learning_rate} * {number(slope)} = {after}")
    return "\n".join(lines)


def _values_at_iteration_0(targets: Sequence[float]) -> dict[str, float]:
    """Returns every name that occurs in ``FORMULAS``, with its number at iteration 0."""
    with jax.enable_x64(True):
        weights, inputs, goal = jnp.array(WEIGHTS), jnp.array(INPUTS), jnp.array(targets, dtype=float)
        activations = forward(weights, inputs)
        row = descend(jnp.ones(1), weights, inputs, goal, num_iterations=0)[0, 0]
        names = ("i1", "i2", "t1", "t2", *COLUMNS, *Deltas._fields)
        values = [*inputs, *goal, *row, *deltas(weights, activations, goal)]
        return {name: float(value) for name, value in zip(names, values, strict=True)}


@dataclass(frozen=True, kw_only=True)
class BackpropConfig:
    """Train a 2-2-2 sigmoid network by backpropagation: a table, a CSV file, an error graph and a live spreadsheet."""

    learning_rates: tuple[float, ...] = (0.1, 0.2, 0.5, 0.8, 1.0, 2.0)
    """The rates to compare, each > 0; a tab of the workbook and a line of the graph each."""
    targets: Annotated[tuple[float, ...], tyro.conf.arg(metavar="T1 T2")] = (0.5, 0.5)
    """What the two outputs should become, each in [0, 1]."""
    num_iterations: int = 67
    """How many updates of the weights to make; the table starts at iteration 0, before the first."""
    out: Path = Path("runs/backprop")
    """The folder for backprop.csv, backprop.png and backprop.xlsx."""
    explain: bool = False
    """Also print each step of iteration 0, forward and backward, with its formula and its numbers."""
    overwrite: bool = False
    """Replace the backprop files that the folder already holds."""

    def __post_init__(self) -> None:
        """Raises InputError for values that cannot be drawn, tabbed or reached by a sigmoid."""
        rates, targets, n = self.learning_rates, self.targets, self.num_iterations
        if not 1 <= len(rates) <= MAX_LEARNING_RATES:
            raise InputError(f"learning_rates takes 1 to {MAX_LEARNING_RATES} rates, got {len(rates)}")
        for rate in rates:
            if not 0 < rate <= MAX_LEARNING_RATE:
                raise InputError(f"learning_rates must be > 0 and <= {MAX_LEARNING_RATE:g}, got {rate!r}")
        if len(set(rates)) < len(rates):
            listed = " ".join(map(repr, rates))
            raise InputError(f"learning_rates must differ from each other, for each names a tab, got {listed}")
        if len(targets) != 2:
            raise InputError(f"targets takes 2 numbers, one an output, got {len(targets)}")
        for target in targets:
            if not 0 <= target <= 1:
                raise InputError(f"targets must be >= 0 and <= 1, where a sigmoid can go, got {target!r}")
        if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= MAX_ITERATIONS:
            raise InputError(f"num_iterations must be a whole number from 0 to {MAX_ITERATIONS}, got {n!r}")


def main() -> None:
    """Runs ``python -m jax_s6.backprop``."""
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


def compute_sheets(config: BackpropConfig) -> np.ndarray:
    """Returns float64 [rates, num_iterations + 1, len(COLUMNS)]; see ``descend``."""
    with jax.enable_x64(True):  # only here: the rest of the package computes in float32
        numbers = (config.learning_rates, WEIGHTS, INPUTS, config.targets)
        problem = (jnp.array(each, dtype=float) for each in numbers)
        return np.asarray(descend(*problem, num_iterations=config.num_iterations))


def refuse_existing(config: BackpropConfig) -> None:
    """Raises InputError if ``config.out`` already holds results and may not lose them."""
    found = sorted(config.out.glob("backprop.*"))
    if found and not config.overwrite:
        raise InputError(f"out already holds {found[0]}; give another --out, or --overwrite to replace what is there")


def write_files(sheets: np.ndarray, config: BackpropConfig) -> list[Path]:
    """Writes the three files into ``config.out``, under temporary names until all of them are complete."""
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".backprop-", dir=config.out) as folder:
        scratch = Path(folder)
        write_csv(scratch / "backprop.csv", sheets, config)
        draw_graph(sheets, config).savefig(scratch / "backprop.png", dpi=200)
        write_sheets(scratch / "backprop.xlsx", sheets, config)
        return [path.replace(config.out / path.name) for path in sorted(scratch.iterdir())]


def write_csv(path: Path, sheets: np.ndarray, config: BackpropConfig) -> None:
    """Writes every sheet, one below the other, with all digits of every float."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["learning_rate", "iteration", *COLUMNS])
        for learning_rate, sheet in zip(config.learning_rates, sheets.tolist(), strict=True):
            writer.writerows([learning_rate, iteration, *row] for iteration, row in enumerate(sheet))


def draw_graph(sheets: np.ndarray, config: BackpropConfig) -> Figure:
    """Draws E by iteration, one line a learning rate."""
    errors = sheets[:, :, COLUMNS.index("E")]
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(errors)))  # yellow is too faint for a line
    for learning_rate, error_by_iteration, color in zip(config.learning_rates, errors, colors, strict=True):
        axes.plot(error_by_iteration, color=color, linewidth=2, label=str(learning_rate))
    axes.plot(0, errors[0, 0], "o", color="black", zorder=3)  # where all lines start
    axes.set_title("Error of the 2-2-2 network, targets {} and {}".format(*config.targets), pad=12)
    axes.set_xlabel("Iteration")
    axes.set_ylabel("Total error  $E = E_1 + E_2$")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(title="Learning rate", loc="outside right center", frameon=False)
    return figure


def write_sheets(path: Path, sheets: np.ndarray, config: BackpropConfig) -> None:
    """Writes the workbook, a tab a learning rate."""
    names = ("learning_rate", "i1", "i2", "t1", "t2", *WEIGHT_NAMES)
    constants = [
        dict(zip(names, (rate, *INPUTS, *config.targets, *WEIGHTS), strict=True)) for rate in config.learning_rates
    ]
    write_workbook(path, sheets, COLUMNS, constants)


def print_table(sheets: np.ndarray, config: BackpropConfig) -> None:
    """Prints E, an iteration a row and a learning rate a column; every so many rows of a long run."""
    table = Table("iteration", *map(str, config.learning_rates), box=box.SIMPLE_HEAD)
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    last = config.num_iterations
    for iteration in sorted({*range(0, last + 1, 1 + last // 100), last}):
        table.add_row(str(iteration), *(f"{value:.8f}" for value in sheets[:, iteration, COLUMNS.index("E")]))
    console = Console()
    # A narrow terminal, or a pipe, which rich takes for 80 columns, must not cut digits.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print("Total error E by learning rate, targets {} and {}".format(*config.targets), highlight=False)
    console.print(table)
