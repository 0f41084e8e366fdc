"""The workbook of Part 1: one tab per learning rate, whose cells compute with the formulas.

Each tab has the constants in one cell each, a picture of the network, the formulas as text, a chart of the error, and
the table of iterations, in which every number is a live formula.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.utility import xl_col_to_name, xl_rowcol_to_cell
from xlsxwriter.worksheet import Worksheet

from jax_s6.backprop.experiment import BackpropConfig
from jax_s6.backprop.formulas import CHAIN_RULES, FORMULAS
from jax_s6.backprop.network import COLUMNS, INPUTS, WEIGHT_NAMES, WEIGHTS
from jax_s6.backprop.pictures import ERROR_COLOR, FORWARD_COLOR, draw_network

HINT = "Every number in the table is a formula. Change a blue number, and the table and the chart are computed again."
UPDATE = "w in the next row = w - learning rate * dE/dw"

# Rows as xlsxwriter counts them, from 0. Constants, picture, chart and formulas stand above the table.
CONSTANTS_ROW = 3
HEADER_ROW = 20
TABLE_ROW = HEADER_ROW + 1
CONSTANTS = ("learning_rate", "i1", "i2", "t1", "t2", *WEIGHT_NAMES)
CELLS = {name: xl_rowcol_to_cell(row, 1, True, True) for row, name in enumerate(CONSTANTS, CONSTANTS_ROW)}
GROUPS = {  # by first column: title, number of columns, colour
    "h1": ("Forward pass", 8, FORWARD_COLOR),
    "E1": ("Error", 3, ERROR_COLOR),
    "w1": ("Weights", 8, "#E2EFDA"),
    "dE_dw1": ("Gradients", 8, "#EDE2F4"),
}
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


def write_workbook(path: Path, sheets: np.ndarray, config: BackpropConfig) -> None:
    """Write one tab per learning rate.

    Args:
        path: The file to write.
        sheets: float64 [rates, iterations, len(COLUMNS)], the values of the formulas. Viewers that do not calculate
            show these.
        config: The settings that lead to these values.
    """
    buffer = io.BytesIO()
    network = draw_network()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as workbook:
        formats = {name: workbook.add_format(style) for name, style in STYLES.items()}
        for learning_rate, sheet in zip(config.learning_rates, sheets, strict=True):
            tab = workbook.add_worksheet(f"rate {learning_rate!r}")
            tab.write(0, 0, "Backpropagation through a 2-2-2 sigmoid network", formats["title"])
            tab.write(1, 0, HINT, formats["hint"])
            constants = (learning_rate, *INPUTS, *config.targets, *WEIGHTS)
            for row, (name, value) in enumerate(zip(CONSTANTS, constants, strict=True), CONSTANTS_ROW):
                tab.write(row, 0, name.replace("_", " "), formats["bold"])
                tab.write(row, 1, value, formats["constant"])
            tab.insert_image("D4", "network.png", {"image_data": network, "description": "The network and its weights"})
            _insert_chart(workbook, tab, len(sheet))
            _write_formula_texts(tab, formats)
            _write_header(tab, formats)
            _write_table(tab, sheet, formats)
            _set_page(tab)
    path.write_bytes(buffer.getvalue())


def to_spreadsheet(formula: str, cells: Mapping[str, str]) -> str:
    """Translate a formula of names into one of cells. A name without a cell is replaced by its own formula.

    >>> to_spreadsheet("dE_do1 * a_h1", {"a_o1": "H2", "t1": "$B$7", "a_h1": "D2"})
    '((H2 - $B$7) * H2 * (1 - H2)) * D2'
    """

    def translate(match: re.Match[str]) -> str:
        name = match[0]
        if name in cells:
            return cells[name]
        return f"({to_spreadsheet(FORMULAS[name], cells)})" if name in FORMULAS else name.upper()

    return re.sub(r"[A-Za-z]\w*", translate, formula)


def _write_table(tab: Worksheet, sheet: np.ndarray, formats: Mapping[str, Format]) -> None:
    """Write one row per iteration."""
    letters = {name: xl_col_to_name(column) for column, name in enumerate(COLUMNS, 1)}
    # Translated once for all rows: {row} is the row as the spreadsheet counts it, {above} the row before it.
    here = {**CELLS, **{name: letter + "{row}" for name, letter in letters.items()}}
    formulas = {name: "=" + to_spreadsheet(FORMULAS[name], here) for name in COLUMNS if name in FORMULAS}
    start = {name: f"={CELLS[name]}" for name in WEIGHT_NAMES}
    updates = {
        name: f"={letters[name]}{{above}} - {CELLS['learning_rate']} * {letters['dE_d' + name]}{{above}}"
        for name in WEIGHT_NAMES
    }
    for row, values in enumerate(sheet.tolist(), TABLE_ROW):
        tab.write(row, 0, row - TABLE_ROW, formats["iteration"])
        by_name = {**formulas, **(start if row == TABLE_ROW else updates)}
        for column, (name, value) in enumerate(zip(COLUMNS, values, strict=True), 1):
            tab.write_formula(row, column, by_name[name].format(row=row + 1, above=row), formats["number"], value)


def _write_header(tab: Worksheet, formats: Mapping[str, Format]) -> None:
    """Write the two header rows: the groups of columns above the columns."""
    style = formats["centered"]
    tab.write(HEADER_ROW, 0, "iteration", style)
    for column, name in enumerate(COLUMNS, 1):
        if name in GROUPS:
            title, width, _ = GROUPS[name]
            style = formats[name]
            tab.merge_range(HEADER_ROW - 1, column, HEADER_ROW - 1, column + width - 1, title, style)
        tab.write(HEADER_ROW, column, name.replace("dE_", "dE/"), style)


def _write_formula_texts(tab: Worksheet, formats: Mapping[str, Format]) -> None:
    """Write the formulas as text: the forward pass in one block, the backward pass in another."""
    split = list(FORMULAS).index("dE_do1")
    rules = {name: f"{rule} = " for name, rule in CHAIN_RULES.items()}
    lines = [f"{name} = {rules.get(name, '')}{formula}".replace("dE_", "dE/") for name, formula in FORMULAS.items()]
    blocks = {("Forward pass", 17): lines[:split], ("Backward pass", 20): [*lines[split:], UPDATE]}
    for (title, column), texts in blocks.items():
        tab.write(CONSTANTS_ROW, column, title, formats["bold"])
        tab.write_column(CONSTANTS_ROW + 1, column, texts)


def _insert_chart(workbook: xlsxwriter.Workbook, tab: Worksheet, num_rows: int) -> None:
    """Insert a line chart of E by iteration, which the spreadsheet draws."""
    last, error = TABLE_ROW + num_rows - 1, COLUMNS.index("E") + 1
    chart = workbook.add_chart({"type": "line"})
    assert chart is not None  # only for a type of chart that does not exist
    iterations, errors = [tab.name, TABLE_ROW, 0, last, 0], [tab.name, TABLE_ROW, error, last, error]
    line = {"color": "#3B528B", "width": 2.25}
    chart.add_series({"name": "E", "categories": iterations, "values": errors, "line": line})
    font, grid = {"size": 10, "bold": False}, {"visible": True, "line": {"color": "#D9D9D9"}}
    chart.set_title({"name": "Total error by iteration", "name_font": {"size": 12}, "overlay": False})
    tick = next(step for step in (1, 5, 10, 50, 100, 500, 1000) if num_rows <= 12 * step)
    ticks = {"interval_unit": tick, "interval_tick": tick, "position_axis": "on_tick"}
    chart.set_x_axis({"name": "Iteration", "name_font": font, **ticks})
    chart.set_y_axis({"name": "Total error E = E1 + E2", "name_font": font, "min": 0, "major_gridlines": grid})
    chart.set_legend({"none": True})
    chart.set_size({"width": 560, "height": 310})
    tab.insert_chart("J4", chart, {"description": "The total error by iteration"})


def _set_page(tab: Worksheet) -> None:
    """Set the widths of the columns, freeze the column of iterations, and print on A3 paper as wide as the table."""
    tab.set_column(0, 0, 13)
    tab.set_column(1, len(COLUMNS), 11.5)
    tab.freeze_panes(0, 1)
    tab.hide_gridlines(2)
    tab.set_landscape()
    tab.set_paper(8)
    tab.fit_to_pages(1, 0)
    tab.set_margins(0.4, 0.4, 0.5, 0.5)
    tab.repeat_rows(HEADER_ROW - 1, HEADER_ROW)
    tab.set_footer("&L&A&RPage &P of &N")
