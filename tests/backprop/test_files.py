"""The CSV file and the graph."""

import csv

import numpy as np

from jax_s6.backprop import draw_graph
from tests.backprop.conftest import CLASS, E


def test_the_csv_holds_every_digit(written, class_sheets):
    with (written / "backprop.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert ",".join(header) == (
        "learning_rate,iteration,h1,h2,a_h1,a_h2,o1,o2,a_o1,a_o2,E1,E2,E,w1,w2,w3,w4,w5,w6,w7,w8,"
        "dE_dw1,dE_dw2,dE_dw3,dE_dw4,dE_dw5,dE_dw6,dE_dw7,dE_dw8"
    )
    numbers = np.array(rows, dtype=float).reshape(6, 68, 29)
    np.testing.assert_array_equal(numbers[:, :, 2:], class_sheets)
    np.testing.assert_array_equal(numbers[:, 0, 0], CLASS.learning_rates)
    np.testing.assert_array_equal(numbers[:, :, 1], np.tile(np.arange(68.0), (6, 1)))


def test_the_graph_has_a_line_and_a_legend_entry_for_each_rate(class_sheets):
    figure = draw_graph(class_sheets, CLASS)
    [axes], [legend] = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0.1", "0.2", "0.5", "0.8", "1.0", "2.0"]
    assert legend.get_title().get_text() == "Learning rate"
    lines = [line for line in axes.lines if np.size(line.get_ydata()) > 1]
    np.testing.assert_array_equal([line.get_ydata() for line in lines], class_sheets[:, :, E])
    assert len({tuple(line.get_color()) for line in lines}) == 6
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()
