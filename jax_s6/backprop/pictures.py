"""The pictures of Part 1: the graph of the error, and the network as it appears in the workbook."""

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jax_s6.backprop.experiment import BackpropConfig
from jax_s6.backprop.network import COLUMNS

FORWARD_COLOR, ERROR_COLOR = "#DDEBF7", "#FCE4D6"
"""Colours of the units and the errors, in the picture of the network and in the workbook's table."""


def draw_graph(sheets: np.ndarray, config: BackpropConfig) -> Figure:
    """Draw the total error against the iteration, with one line per learning rate.

    Args:
        sheets: What ``compute_sheets`` returned for the settings.
        config: The settings.
    """
    errors = sheets[:, :, COLUMNS.index("E")]
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(errors)))  # yellow is too faint for a line
    for learning_rate, error_by_iteration, color in zip(config.learning_rates, errors, colors, strict=True):
        axes.plot(error_by_iteration, color=color, linewidth=2, label=str(learning_rate))
    axes.plot(0, errors[0, 0], "o", color="black", zorder=3)
    axes.annotate(
        "all rates start with the same weights", (0, errors[0, 0]), (9, 5), textcoords="offset points", fontsize=9
    )
    axes.set_title("Error of a 2-2-2 sigmoid network in training, targets {} and {}".format(*config.targets), pad=12)
    axes.set_xlabel("Iteration (number of updates of the weights)")
    axes.set_ylabel("Total error  $E = E_1 + E_2$")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(title="Learning rate", loc="outside right center", frameon=False)
    return figure


def draw_network() -> io.BytesIO:
    """Draw the network as a PNG picture: its units, its weights and its errors."""
    figure = Figure(figsize=(5.1, 3.2))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.3, 3.4), ylim=(-0.35, 1.6))
    axes.axis("off")
    layers = {"i": (0.0, "inputs"), "h": (1.15, "hidden units"), "o": (2.3, "outputs"), "E": (3.1, "errors")}
    at = {f"{layer}{unit}": (x, 2 - unit) for layer, (x, _) in layers.items() for unit in (1, 2)}
    edges = {"i1 h1": "w1", "i2 h1": "w2", "i1 h2": "w3", "i2 h2": "w4", "o1 E1": ""}
    edges |= {"h1 o1": "w5", "h2 o1": "w6", "h1 o2": "w7", "h2 o2": "w8", "o2 E2": ""}
    arrow = {"arrowstyle": "-|>", "color": "#7F7F7F", "shrinkA": 18, "shrinkB": 18}
    for edge, weight in edges.items():
        (x0, y0), (x1, y1) = map(at.__getitem__, edge.split())
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        # Near the unit where the edge starts: half-way along, the labels of crossing edges would overlap.
        place = x0 + 0.34 * (x1 - x0), y0 + 0.34 * (y1 - y0)
        axes.text(*place, weight, ha="center", va="center", bbox={"color": "white", "pad": 1.5})
    colors = {"i": "#F2F2F2", "h": FORWARD_COLOR, "o": FORWARD_COLOR, "E": ERROR_COLOR}
    for name, (x, y) in at.items():
        box = {"boxstyle": "circle" if name[0] != "E" else "round", "facecolor": colors[name[0]]}
        axes.text(x, y, name, ha="center", va="center", fontsize=13, bbox=box)
    for x, title in layers.values():
        axes.text(x, 1.4, title, ha="center", color="#595959")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=192)
    return picture
