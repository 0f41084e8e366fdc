"""What a sweep prints: its plan, its epochs, and a table of the best settings; nothing here compiles."""

import numpy as np
import pytest

from jax_s6.config import RECIPES
from jax_s6.runs.console import console
from jax_s6.runs.engine import Run
from jax_s6.sweep.console import MAX_ROWS, describe_epoch, print_best, print_plan
from jax_s6.training.plan import DEFAULT_GRID, make_plan
from tests.small_runs import make_small_run


@pytest.fixture
def printed(capsys, monkeypatch):
    """Returns what was printed, in lines that are wide enough."""
    monkeypatch.setattr(console, "width", 120)
    return lambda: capsys.readouterr().out.splitlines()


def make_rows(grid, score="test_accuracy", **columns):
    """Makes the rows of a sweep whose accuracy is 0.5 plus 0.01 times the lane, unless it is given."""
    plan = make_plan(RECIPES["best"], grid)
    rows = [{"lane": k, **plan.settings(k), score: 0.5 + 0.01 * k, "diverged_at": None} for k in range(plan.num_lanes)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows, plan.grid, score


def table_of(lines):
    """Returns the cells of the table's rows, without its head."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_plan_says_when_it_is_the_default_grid(bars, printed):
    run = Run(make_plan(RECIPES["best"], DEFAULT_GRID), bars)
    print_plan(run)
    lines = printed()
    assert lines[0] == "6 lanes in 1 group, compiled once; default grid: the assignment's six learning rates"
    assert lines[1] == "  learning_rate: 0.1, 0.2, 0.5, 0.8, 1.0, 2.0"
    assert lines[2].startswith(
        "  group 1: 6 lanes, 19 epochs, batch 128, sgd, one_cycle, augmentation, dropout; on 4 CPU"
    )
    for grid in ({"seed": (0, 1, 2)}, {"learning_rate": (0.1, 0.2)}):
        print_plan(Run(make_plan(RECIPES["best"], grid), bars))
        assert "default" not in " ".join(printed())


def test_plan_says_when_devices_share_batches(bars, printed):
    print_plan(Run(make_plan(RECIPES["best"], {"seed": (0, 1)}), bars))
    assert "each batch split over 2" in " ".join(printed())


def test_line_of_an_epoch_names_the_best_lane_and_its_score(bars):
    run = make_small_run(bars, {"num_epochs": (2, 3), "learning_rate": (0.02, 0.05)})
    run.trainers[1].epoch = 2
    for lane, accuracy in enumerate((0.5, 0.6, 0.9, 0.8)):
        values = {name: np.array([accuracy]) for name in run.records.metrics}
        run.records.add_epoch(np.array([lane]), 2, values)
    assert describe_epoch(run, 1, 2, 12345.6) == (
        "group 2/2  epoch   2/3  2 lanes  12,346 model-images/s  best lane 2 (num_epochs 3, learning_rate 0.02):"
        " validation accuracy 90.00%"
    )


def test_table_is_best_first_with_means_and_deviations_over_seeds(printed):
    accuracies = (0.97, 0.99, 0.90, 0.91, 0.995, 0.985)
    print_best(*make_rows({"learning_rate": (0.1, 0.2, 0.5), "seed": (0, 1)}, test_accuracy=accuracies))
    lines = printed()
    assert table_of(lines) == [
        ["0.5", "99.00%", "0.71%", "2", ""],
        ["0.1", "98.00%", "1.41%", "2", ""],
        ["0.2", "90.50%", "0.71%", "2", ""],
    ]
    head = next(line for line in lines if "learning rate" in line)
    for title in ("test accuracy", "deviation", " n ", "diverged or dropped"):
        assert title in head
    assert lines[-1] == "the best lane was chosen on the test images"


def test_one_lane_per_setting_has_no_deviation_and_held_out_images_are_named(printed):
    print_best(*make_rows({"learning_rate": (0.1, 0.2), "momentum": (0.8, 0.9)}, "validation_accuracy"))
    lines = printed()
    assert table_of(lines)[0] == ["0.2", "0.9", "53.00%", "", "1", ""]
    assert "validation accuracy" in " ".join(lines)
    assert lines[-1] == "the best lane was chosen on the held-out images"


def test_lanes_that_diverged_or_were_dropped_are_counted_and_not_averaged(printed):
    lost = {"diverged_at": (None, 7, None, 3, 4, None), "pruned_at": (None, None, None, None, None, 1)}
    print_best(*make_rows({"learning_rate": (0.1, 0.2, 0.5), "seed": (0, 1)}, **lost))
    assert table_of(printed()) == [
        ["0.2", "52.00%", "", "1", "1"],
        ["0.1", "50.00%", "", "1", "1"],
        ["0.5", "", "", "0", "2"],
    ]


def test_table_has_at_most_twenty_rows(printed):
    rates = tuple(np.linspace(0.1, 1, 30).round(4).tolist())
    print_best(*make_rows({"learning_rate": rates}))
    lines = printed()
    assert MAX_ROWS == 20 and [float(row[0]) for row in table_of(lines)] == list(reversed(rates[10:]))
    assert "the best 20 of 30; sweep.csv has all" in lines


def test_only_seeds_that_differ_are_one_row(printed):
    print_best(*make_rows({"seed": (0, 1, 2)}))
    assert table_of(printed()) == [["51.00%", "1.00%", "3", ""]]
