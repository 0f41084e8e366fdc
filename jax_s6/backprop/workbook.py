"""Part 1's spreadsheet: the formulas of ``backprop.py`` as text, and the workbook whose cells compute with them.

A tab a learning rate. On each: the constants in one cell apiece, the network as a picture, the formulas, the native
chart of the error, and the table, of which every cell is a live formula. Nothing here imports ``backprop.py``.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xlsxwriter
from matplotlib.figure import Figure
from xlsxwriter.format import Format
from xlsxwriter.utility import xl_col_to_name, xl_rowcol_to_cell
from xlsxwriter.worksheet import Worksheet

# In the order of the computation. ``*``, ``/``, ``^`` and ``exp`` mean the same to a reader and to a spreadsheet.
FORMULAS: Mapping[str, str] = {
    "h1": "w1 * i1 + w2 * i2",
    "h2": "w3 * i1 + w4 * i2",
    "a_h1": "1 / (1 + exp(-h1))",
    "a_h2": "1 / (1 + exp(-h2))",
    "o1": "w5 * a_h1 + w6 * a_h2",
    "o2": "w7 * a_h1 + w8 * a_h2",
    "a_o1": "1 / (1 + exp(-o1))",
    "a_o2": "1 / (1 + exp(-o2))",
    "E1": "1/2 * (t1 - a_o1)^2",
    "E2": "1/2 * (t2 - a_o2)^2",
    "E": "E1 + E2",
    "dE_do1": "(a_o1 - t1) * a_o1 * (1 - a_o1)",
    "dE_do2": "(a_o2 - t2) * a_o2 * (1 - a_o2)",
    "dE_dw5": "dE_do1 * a_h1",
    "dE_dw6": "dE_do1 * a_h2",
    "dE_dw7": "dE_do2 * a_h1",
    "dE_dw8": "dE_do2 * a_h2",
    "dE_dh1": "(dE_do1 * w5 + dE_do2 * w7) * a_h1 * (1 - a_h1)",
    "dE_dh2": "(dE_do1 * w6 + dE_do2 * w8) * a_h2 * (1 - a_h2)",
    "dE_dw1": "dE_dh1 * i1",
    "dE_dw2": "dE_dh1 * i2",
    "dE_dw3": "dE_dh2 * i1",
    "dE_dw4": "dE_dh2 * i2",
}

CHAIN_RULES: Mapping[str, str] = {
    "dE_do1": "dE1/da_o1 * da_o1/do1",
    "dE_do2": "dE2/da_o2 * da_o2/do2",
    "dE_dw5": "dE/do1 * do1/dw5",
    "dE_dw6": "dE/do1 * do1/dw6",
    "dE_dw7": "dE/do2 * do2/dw7",
    "dE_dw8": "dE/do2 * do2/dw8",
    "dE_dh1": "(dE/do1 * do1/da_h1 + dE/do2 * do2/da_h1) * da_h1/dh1",
    "dE_dh2": "(dE/do1 * do1/da_h2 + dE/do2 * do2/da_h2) * da_h2/dh2",
    "dE_dw1": "dE/dh1 * dh1/dw1",
    "dE_dw2": "dE/dh1 * dh1/dw2",
    "dE_dw3": "dE/dh2 * dh2/dw3",
    "dE_dw4": "dE/dh2 * dh2/dw4",
}

UPDATE = "next row's w = w - learning rate * dE/dw"

# Rows as xlsxwriter counts them, from 0. Constants, picture, chart and formulas stand above the table.
CONSTANTS_ROW = 3
HEADER_ROW = 20
TABLE_ROW = HEADER_ROW + 1
GROUPS = {  # by first column: title, number of columns, colour
    "h1": ("Forward pass", 8, "#DDEBF7"),
    "E1": ("Error", 3, "#FCE4D6"),
    "w1": ("Weights", 8, "#E2EFDA"),
    "dE_dw1": ("Gradients", 8, "#EDE2F4"),
}
UNIT_COLORS = {"i": "#F2F2F2", "h": "#DDEBF7", "o": "#DDEBF7", "E": "#FCE4D6"}  # as in the table
STYLES: Mapping[str, dict[str, Any]] = {
    "title": {"bold": True, "font_size": 16},
    "hint": {"italic": True, "font_color": "#595959"},
    "bold": {"bold": True},
    "constant": {"font_color": "#0000FF", "bg_color": "#FFF9E5", "border": 1, "border_color": "#BFBFBF"},
    "iteration": {"align": "center"},
    "centered": {"bold": True, "align": "center"},
    "number": {"num_format": "0.00000000"},
    **{name: {"bold": True, "align": "center", "bg_color": color} for name, (_, _, color) in GROUPS.items()},
}


def write_workbook(
    path: Path, sheets: np.ndarray, columns: Sequence[str], constants: Sequence[Mapping[str, float]]
) -> None:
    """Writes a tab a sheet, with live formulas that a viewer which does not calculate finds already computed.

    Args:
        path: The file to write.
        sheets: float64 [tabs, rows, columns], what the formulas give at iteration 0, 1, ...
        columns: The names of the table's columns.
        constants: For every tab ``learning_rate``, i1, i2, t1, t2, and w1 to w8 at iteration 0.
    """
    buffer = io.BytesIO()
    network = draw_network()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as workbook:
        formats = {name: workbook.add_format(style) for name, style in STYLES.items()}
        for sheet, given in zip(sheets, constants, strict=True):
            tab = workbook.add_worksheet(f"rate {given['learning_rate']!r}")
            tab.write(0, 0, "Backpropagation through a 2-2-2 sigmoid network", formats["title"])
            tab.write(1, 0, "The table is made of formulas: change a blue number, and it follows.", formats["hint"])
            cells = _write_constants(tab, given, formats)
            tab.insert_image("D4", "network.png", {"image_data": network, "description": "The network and its weights"})
            _insert_chart(workbook, tab, len(sheet), columns)
            _write_formula_texts(tab, formats)
            _write_header(tab, columns, formats)
            _write_table(tab, sheet, columns, cells, formats)
            _set_page(tab, len(columns))
    path.write_bytes(buffer.getvalue())


def to_spreadsheet(formula: str, cells: Mapping[str, str]) -> str:
    """Turns a formula of names into one of cells; a name without a cell is replaced by its own formula.

    >>> to_spreadsheet("dE_do1 * a_h1", {"a_o1": "H2", "t1": "$B$7", "a_h1": "D2"})
    '((H2 - $B$7) * H2 * (1 - H2)) * D2'
    """

    def translate(match: re.Match[str]) -> str:
        name = match[0]
        if name in cells:
            return cells[name]
        return f"({to_spreadsheet(FORMULAS[name], cells)})" if name in FORMULAS else name.upper()

    return re.sub(r"[A-Za-z]\w*", translate, formula)


def _write_constants(tab: Worksheet, given: Mapping[str, float], formats: Mapping[str, Format]) -> dict[str, str]:
    """Writes a constant a row and returns the cells that hold the numbers, by name."""
    for row, (name, value) in enumerate(given.items(), CONSTANTS_ROW):
        tab.write(row, 0, name.replace("_", " "), formats["bold"])
        tab.write(row, 1, value, formats["constant"])
    return {name: xl_rowcol_to_cell(row, 1, True, True) for row, name in enumerate(given, CONSTANTS_ROW)}


def _write_table(
    tab: Worksheet, sheet: np.ndarray, columns: Sequence[str], cells: Mapping[str, str], formats: Mapping[str, Format]
) -> None:
    """Writes the iterations; ``cells`` are the constants'."""
    letters = {name: xl_col_to_name(column) for column, name in enumerate(columns, 1)}
    # Translated once for all rows: {row} is the row as the spreadsheet counts it, {above} the one before.
    here = {**cells, **{name: letter + "{row}" for name, letter in letters.items()}}
    formulas = {name: "=" + to_spreadsheet(FORMULAS[name], here) for name in columns if name in FORMULAS}
    updates = {
        name: f"={letters[name]}{{above}} - {cells['learning_rate']} * {letters['dE_d' + name]}{{above}}"
        for name in columns
        if name not in FORMULAS
    }
    start = {name: f"={cells[name]}" for name in updates}
    for row, values in enumerate(sheet.tolist(), TABLE_ROW):
        tab.write(row, 0, row - TABLE_ROW, formats["iteration"])
        by_name = {**formulas, **(start if row == TABLE_ROW else updates)}
        for column, (name, value) in enumerate(zip(columns, values, strict=True), 1):
            tab.write_formula(row, column, by_name[name].format(row=row + 1, above=row), formats["number"], value)


def _write_header(tab: Worksheet, columns: Sequence[str], formats: Mapping[str, Format]) -> None:
    """Writes the two header rows: the groups of columns, and the columns."""
    style = formats["centered"]
    tab.write(HEADER_ROW, 0, "iteration", style)
    for column, name in enumerate(columns, 1):
        if name in GROUPS:
            title, width, _ = GROUPS[name]
            style = formats[name]
            tab.merge_range(HEADER_ROW - 1, column, HEADER_ROW - 1, column + width - 1, title, style)
        tab.write(HEADER_ROW, column, name.replace("dE_", "dE/"), style)


def _write_formula_texts(tab: Worksheet, formats: Mapping[str, Format]) -> None:
    """Writes the formulas for the reader: the forward pass in one block, the backward pass in another."""
    split = list(FORMULAS).index("dE_do1")
    rules = {name: f"{rule} = " for name, rule in CHAIN_RULES.items()}
    lines = [f"{name} = {rules.get(name, '')}{formula}".replace("dE_", "dE/") for name, formula in FORMULAS.items()]
    blocks = {("Forward pass", 17): lines[:split], ("Backward pass", 20): [*lines[split:], UPDATE]}
    for (title, column), texts in blocks.items():
        tab.write(CONSTANTS_ROW, column, title, formats["bold"])
        for row, text in enumerate(texts, CONSTANTS_ROW + 1):
            tab.write_string(row, column, text)


def _insert_chart(workbook: xlsxwriter.Workbook, tab: Worksheet, num_rows: int, columns: Sequence[str]) -> None:
    """Draws E by iteration, as the spreadsheet's own line chart."""
    last, error = TABLE_ROW + num_rows - 1, columns.index("E") + 1
    chart = workbook.add_chart({"type": "line"})
    assert chart is not None  # None is for a type that does not exist
    chart.add_series(
        {
            "name": "E",
            "categories": [tab.name, TABLE_ROW, 0, last, 0],
            "values": [tab.name, TABLE_ROW, error, last, error],
            "line": {"color": "#3B528B", "width": 2.25},
        }
    )
    font, grid = {"size": 10, "bold": False}, {"visible": True, "line": {"color": "#D9D9D9"}}
    chart.set_title({"name": "Total error by iteration", "name_font": {"size": 12}, "overlay": False})
    tick = next(step for step in (1, 5, 10, 50, 100, 500, 1000) if num_rows <= 12 * step)
    ticks = {"interval_unit": tick, "interval_tick": tick, "position_axis": "on_tick"}
    chart.set_x_axis({"name": "Iteration", "name_font": font, **ticks})
    chart.set_y_axis({"name": "E = E1 + E2", "name_font": font, "min": 0, "major_gridlines": grid})
    chart.set_legend({"none": True})
    chart.set_size({"width": 560, "height": 310})
    tab.insert_chart("J4", chart, {"description": "The total error by iteration"})


def _set_page(tab: Worksheet, num_columns: int) -> None:
    """Sets the columns' widths, the frozen column of iterations and the printed page: A3, as wide as the table."""
    tab.set_column(0, 0, 13)
    tab.set_column(1, num_columns, 11.5)
    tab.freeze_panes(0, 1)
    tab.hide_gridlines(2)
    tab.set_landscape()
    tab.set_paper(8)
    tab.fit_to_pages(1, 0)
    tab.set_margins(0.4, 0.4, 0.5, 0.5)
    tab.repeat_rows(HEADER_ROW - 1, HEADER_ROW)
    tab.set_footer("&L&A&RPage &P of &N")


def draw_network() -> io.BytesIO:
    """Returns a PNG picture of the network: its units, its weights and its errors."""
    figure = Figure(figsize=(5.1, 3.2))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.3, 3.4), ylim=(-0.35, 1.6))
    axes.axis("off")
    layers = {"i": (0.0, "inputs"), "h": (1.15, "hidden"), "o": (2.3, "outputs"), "E": (3.1, "errors")}
    at = {f"{layer}{unit}": (x, 2 - unit) for layer, (x, _) in layers.items() for unit in (1, 2)}
    edges = {"i1 h1": "w1", "i2 h1": "w2", "i1 h2": "w3", "i2 h2": "w4", "o1 E1": ""}
    edges |= {"h1 o1": "w5", "h2 o1": "w6", "h1 o2": "w7", "h2 o2": "w8", "o2 E2": ""}
    arrow = {"arrowstyle": "-|>", "color": "#7F7F7F", "shrinkA": 18, "shrinkB": 18}
    for edge, weight in edges.items():
        (x0, y0), (x1, y1) = map(at.__getitem__, edge.split())
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        # Near the unit that it leaves: half-way the labels of crossing edges would meet.
        place = x0 + 0.34 * (x1 - x0), y0 + 0.34 * (y1 - y0)
        axes.text(*place, weight, ha="center", va="center", bbox={"color": "white", "pad": 1.5})
    for name, (x, y) in at.items():
        box = {"boxstyle": "circle" if name[0] != "E" else "round", "facecolor": UNIT_COLORS[name[0]]}
        axes.text(x, y, name, ha="center", va="center", fontsize=13, bbox=box)
    for x, title in layers.values():
        axes.text(x, 1.4, title, ha="center", color="#595959")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=192)
    return picture
