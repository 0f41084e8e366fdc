"""Part 1: the numbers against published sheets, jax.grad and a scalar re-computation; the files; the command."""

import csv
import errno
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_s6.backprop import command as backprop
from jax_s6.backprop import workbook
from jax_s6.backprop.command import COLUMNS, INPUTS, WEIGHTS, BackpropConfig
from jax_s6.errors import InputError

CLASS_SHEET = BackpropConfig()
OTHER_SHEET = BackpropConfig(targets=(0.01, 0.99), num_iterations=50)
E = COLUMNS.index("E")

weights_strategy = st.lists(st.floats(-6, 6), min_size=8, max_size=8)
unit_pair = st.tuples(st.floats(0, 1), st.floats(0, 1))


@pytest.mark.parametrize(
    "config, at_start, at_iteration_10_of_rate_1",
    [(CLASS_SHEET, "0.014181377938", "0.00778913"), (OTHER_SHEET, "0.242519857348", "0.1324608")],
)
def test_the_error_is_that_of_the_published_sheet(config, at_start, at_iteration_10_of_rate_1):
    errors = backprop.compute_sheets(config)[:, :, E]
    assert errors.shape == (6, config.num_iterations + 1)
    assert {f"{error:.12f}" for error in errors[:, 0]} == {at_start}
    digits = len(at_iteration_10_of_rate_1) - 2
    assert f"{errors[4, 10]:.{digits}f}" == at_iteration_10_of_rate_1


gradients, autodiff = jax.jit(backprop.gradients), jax.jit(jax.grad(backprop.error))


@settings(max_examples=200, deadline=None)
@given(weights_strategy, st.tuples(st.floats(-3, 3), st.floats(-3, 3)), unit_pair)
def test_the_derived_gradients_are_those_of_autodiff(weights, inputs, targets):
    with jax.enable_x64(True):
        problem = [jnp.array(numbers, dtype=float) for numbers in (weights, inputs, targets)]
        np.testing.assert_allclose(gradients(*problem), autodiff(*problem), rtol=0, atol=1e-12)


def test_the_gradients_of_w3_and_w4_use_the_slope_of_h2():
    # The hidden units sit at very different slopes; a sheet that copies a_h1 (1 - a_h1) is off by a factor of 5.
    weights, (i1, i2), (t1, t2) = (0.1, 0.2, 1.5, 2.0, 0.4, 0.45, 0.5, 0.55), (1.0, 1.0), (0.01, 0.99)

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    a_h1, a_h2 = sigmoid(0.1 * i1 + 0.2 * i2), sigmoid(1.5 * i1 + 2.0 * i2)
    a_o1, a_o2 = sigmoid(0.4 * a_h1 + 0.45 * a_h2), sigmoid(0.5 * a_h1 + 0.55 * a_h2)
    back = (a_o1 - t1) * a_o1 * (1 - a_o1) * 0.45 + (a_o2 - t2) * a_o2 * (1 - a_o2) * 0.55
    with jax.enable_x64(True):
        problem = [jnp.array(numbers) for numbers in (weights, (i1, i2), (t1, t2))]
        got = np.asarray(backprop.gradients(*problem))[2:4]
    np.testing.assert_allclose(got, back * a_h2 * (1 - a_h2), rtol=1e-12)
    assert np.all(np.abs(got - back * a_h1 * (1 - a_h1)) > 5e-3)


@settings(max_examples=50, deadline=None)
@given(weights_strategy, unit_pair)
def test_the_formulas_as_text_are_the_code(weights, targets):
    """--explain and the workbook show ``FORMULAS``; evaluated, they must give what the functions give."""
    with jax.enable_x64(True):
        problem = [jnp.array(numbers, dtype=float) for numbers in (weights, INPUTS, targets)]
        row = backprop.descend(jnp.ones(1), *problem, num_iterations=0)[0, 0].tolist()
    names = {"exp": math.exp, **dict(zip(("i1", "i2", "t1", "t2"), (*INPUTS, *targets), strict=True))}
    names |= dict(zip(backprop.WEIGHT_NAMES, weights, strict=True))
    for name, formula in workbook.FORMULAS.items():
        names[name] = eval(formula.replace("^", "**"), {}, names)
    np.testing.assert_allclose(row, [names[name] for name in COLUMNS], rtol=0, atol=1e-12)


def test_each_row_is_the_row_above_after_one_update():
    sheets = backprop.compute_sheets(OTHER_SHEET)
    weights, slopes = sheets[:, :, 11:19], sheets[:, :, 19:27]
    rates = np.array(OTHER_SHEET.learning_rates)[:, None, None]
    np.testing.assert_array_equal(weights[:, 0], np.tile(WEIGHTS, (6, 1)))
    np.testing.assert_allclose(weights[:, 1:], weights[:, :-1] - rates * slopes[:, :-1], rtol=0, atol=1e-15)


def test_a_rate_beside_others_gives_what_it_gives_alone():
    together = backprop.compute_sheets(CLASS_SHEET)
    for k, rate in enumerate(CLASS_SHEET.learning_rates):
        alone = backprop.compute_sheets(BackpropConfig(learning_rates=(rate,)))
        np.testing.assert_allclose(together[k], alone[0], rtol=0, atol=1e-14)


def test_float64_stays_local():
    assert backprop.compute_sheets(CLASS_SHEET).dtype == np.float64
    backprop.explain((0.5, 0.5), 0.1)
    assert jnp.zeros(1).dtype == jnp.float32


def test_the_largest_rate_stays_where_a_spreadsheet_can_compute():
    """A spreadsheet's EXP ends at 709; jax's sigmoid would go on, and the two would part."""
    for targets in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)]:
        config = BackpropConfig(
            learning_rates=(backprop.MAX_LEARNING_RATE, 100.0, 30.0), targets=targets, num_iterations=500
        )
        sheets = backprop.compute_sheets(config)
        assert np.isfinite(sheets).all()
        assert np.abs(sheets[:, :, :8]).max() < 709


@pytest.mark.parametrize("targets", [(0.5, 0.5), (0.01, 0.99)])
def test_every_step_of_the_explanation_adds_up(targets):
    text = backprop.explain(targets, 2.0)
    assert text.isascii()  # a console that knows no more prints it
    for name in workbook.FORMULAS:
        label = re.escape(name.replace("dE_", "dE/"))
        block = re.search(rf"^  {label} = (.*(?:\n {{4,}}= .*)+)", text, re.MULTILINE)
        assert block, name
        *_, numbers, result = re.split(r"\n +=", block[1])
        assert not re.search(r"[a-df-z]", numbers.replace("exp", "")), f"{name}: a name without its number in {numbers}"
        assert eval(numbers.replace("^", "**"), {"exp": math.exp}) == pytest.approx(eval(result), rel=1e-6)
    updates = re.findall(r"^  w\d = (.*) = (.*)$", text, re.MULTILINE)
    assert len(updates) == 8
    after = backprop.compute_sheets(BackpropConfig(learning_rates=(2.0,), targets=targets, num_iterations=1))[0, 1]
    for (numbers, result), weight in zip(updates, after[11:19], strict=True):
        assert eval(numbers) == pytest.approx(float(result), rel=1e-6) == pytest.approx(weight, rel=1e-6)


def test_the_explanation_shows_the_known_error():
    assert "= 0.014181378\n" in backprop.explain((0.5, 0.5), 0.1)
    assert "= 0.24251986\n" in backprop.explain((0.01, 0.99), 0.1)


def test_the_graph_has_a_line_and_a_legend_entry_for_each_rate():
    sheets = backprop.compute_sheets(CLASS_SHEET)
    figure = backprop.draw_graph(sheets, CLASS_SHEET)
    [axes], [legend] = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0.1", "0.2", "0.5", "0.8", "1.0", "2.0"]
    assert legend.get_title().get_text() == "Learning rate"
    lines = [line for line in axes.lines if np.size(line.get_ydata()) > 1]
    np.testing.assert_array_equal([line.get_ydata() for line in lines], sheets[:, :, E])
    assert len({tuple(line.get_color()) for line in lines}) == 6
    assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backprop")
    backprop.write_files(backprop.compute_sheets(CLASS_SHEET), BackpropConfig(out=folder))
    return folder


def test_the_csv_holds_every_digit(written):
    with (written / "backprop.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert ",".join(header) == (
        "learning_rate,iteration,h1,h2,a_h1,a_h2,o1,o2,a_o1,a_o2,E1,E2,E,w1,w2,w3,w4,w5,w6,w7,w8,"
        "dE_dw1,dE_dw2,dE_dw3,dE_dw4,dE_dw5,dE_dw6,dE_dw7,dE_dw8"
    )
    numbers = np.array(rows, dtype=float).reshape(6, 68, 29)
    np.testing.assert_array_equal(numbers[:, :, 2:], backprop.compute_sheets(CLASS_SHEET))
    np.testing.assert_array_equal(numbers[:, 0, 0], CLASS_SHEET.learning_rates)
    np.testing.assert_array_equal(numbers[:, :, 1], np.tile(np.arange(68.0), (6, 1)))


def load(path: Path, *, data_only: bool = False) -> Any:
    """Opens a workbook; openpyxl's cells have too many types to be of use to a type checker."""
    return openpyxl.load_workbook(path, data_only=data_only)


def read_workbook(path: Path) -> tuple[list[str], np.ndarray]:
    """Returns the tabs' names and the numbers of their tables as the file holds them."""
    book = load(path, data_only=True)
    sheets = []
    for tab in book.worksheets:
        rows = list(tab.iter_rows(values_only=True))
        [top] = [k for k, row in enumerate(rows) if row[0] == "iteration"]
        assert tuple(name.replace("dE/", "dE_") for name in rows[top][1:28]) == COLUMNS
        sheets.append([row[1:28] for row in rows[top + 1 :]])
    return book.sheetnames, np.array(sheets, dtype=float)


def test_the_workbook_has_a_tab_a_rate_made_of_formulas(written):
    book = load(written / "backprop.xlsx")
    assert book.sheetnames == ["rate 0.1", "rate 0.2", "rate 0.5", "rate 0.8", "rate 1.0", "rate 2.0"]
    for tab, rate in zip(book.worksheets, CLASS_SHEET.learning_rates, strict=True):
        table = tab.iter_rows(min_row=workbook.TABLE_ROW + 1, min_col=2, max_col=28)
        assert all(str(cell.value).startswith("=") for row in table for cell in row)
        labels = {row[0].value: row[1].value for row in tab.iter_rows(max_row=workbook.HEADER_ROW, max_col=2)}
        assert labels["learning rate"] == rate and labels["w8"] == 0.55
        assert len(tab._images) == 1  # the network


def test_a_viewer_that_does_not_calculate_shows_the_numbers(written):
    _, cached = read_workbook(written / "backprop.xlsx")
    np.testing.assert_allclose(cached, backprop.compute_sheets(CLASS_SHEET), rtol=0, atol=1e-15)


def test_each_tab_charts_its_own_error(written):
    for tab in load(written / "backprop.xlsx").worksheets:
        [chart] = tab._charts
        assert type(chart).__name__ == "LineChart"
        [series] = chart.series
        header = {cell.value: cell.column_letter for cell in tab[workbook.HEADER_ROW + 1]}
        first, last = workbook.TABLE_ROW + 1, workbook.TABLE_ROW + 68
        assert series.val.numRef.f == f"'{tab.title}'!${header['E']}${first}:${header['E']}${last}"
        assert series.cat.numRef.f == f"'{tab.title}'!$A${first}:$A${last}"
        assert chart.x_axis.title and chart.y_axis.title and chart.title


@pytest.fixture(scope="module")
def recalculate(tmp_path_factory):
    """Returns a function that has LibreOffice recalculate workbooks and gives the folder of the results."""
    soffice = shutil.which("soffice")
    if soffice is None:
        pytest.skip("needs soffice (apt-get install --no-install-recommends libreoffice-calc)")
    profile = tmp_path_factory.mktemp("profile")
    (profile / "user").mkdir()
    # 0 is "always": by default LibreOffice trusts the numbers that a file by "Microsoft Excel" brings along.
    (profile / "user" / "registrymodifications.xcu").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<oor:items xmlns:oor="http://openoffice.org/2001/registry">'
        '<item oor:path="/org.openoffice.Office.Calc/Formula/Load">'
        '<prop oor:name="OOXMLRecalcMode" oor:op="fuse"><value>0</value></prop></item></oor:items>'
    )

    def run(*paths: Path) -> Path:
        out = tmp_path_factory.mktemp("recalculated")
        command = [soffice, f"-env:UserInstallation={profile.as_uri()}", "--headless", "--convert-to", "xlsx"]
        done = subprocess.run(
            [*command, "--outdir", str(out), *map(str, paths)], capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stderr
        return out

    return run


@pytest.mark.libreoffice
def test_libreoffice_recalculates_the_sheet_to_the_csv(recalculate, written, tmp_path):
    """The formulas are live, and right: from nonsense in their cells LibreOffice arrives at the CSV's numbers."""
    configs = {"class": BackpropConfig(), "other": OTHER_SHEET}
    for name, config in configs.items():
        sheets = backprop.compute_sheets(config)
        backprop.write_sheets(tmp_path / f"{name}.xlsx", np.full_like(sheets, -7.0), config)
        assert (read_workbook(tmp_path / f"{name}.xlsx")[1] == -7.0).all()
    changed = load(tmp_path / "class.xlsx")
    for row in changed["rate 0.1"].iter_rows(max_row=workbook.HEADER_ROW, max_col=2):
        if row[0].value == "learning rate":
            row[1].value = 3.5
    changed.save(tmp_path / "changed.xlsx")
    out = recalculate(written / "backprop.xlsx", *(tmp_path / f"{name}.xlsx" for name in (*configs, "changed")))

    with (written / "backprop.csv").open(newline="") as file:
        numbers = np.array(list(csv.reader(file))[1:], dtype=float).reshape(6, 68, 29)[:, :, 2:]
    for name in ("backprop", "class"):
        np.testing.assert_allclose(read_workbook(out / f"{name}.xlsx")[1], numbers, rtol=0, atol=1e-12)
    other = read_workbook(out / "other.xlsx")[1]
    np.testing.assert_allclose(other, backprop.compute_sheets(OTHER_SHEET), rtol=0, atol=1e-12)
    faster = backprop.compute_sheets(BackpropConfig(learning_rates=(3.5,)))[0]
    np.testing.assert_allclose(read_workbook(out / "changed.xlsx")[1][0], faster, rtol=0, atol=1e-12)


@pytest.fixture
def command(monkeypatch, capsys):
    """Returns a function that runs the command here and gives its exit status, standard output and error."""

    def run(*args: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["backprop", *map(str, args)])
        status = 0
        try:
            backprop.cli.run(backprop.main)
        except SystemExit as stop:
            status = stop.code
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


def test_the_command_writes_three_files_and_prints_whole_numbers(command, tmp_path):
    rates = [0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]  # wider than the 80 columns of a pipe
    status, output, errors = command("--out", tmp_path / "a" / "b", "--learning-rates", *rates, "--num-iterations", 11)
    assert (status, errors) == (0, "")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "backprop.csv",
        "backprop.png",
        "backprop.xlsx",
    ]
    assert (tmp_path / "a" / "b" / "backprop.png").read_bytes().startswith(b"\x89PNG")
    table = [line.split() for line in output.splitlines() if re.match(r" +\d+ ", line)]
    sheets = backprop.compute_sheets(BackpropConfig(learning_rates=tuple(rates), num_iterations=11))
    assert table == [[str(k), *(f"{value:.8f}" for value in sheets[:, k, E])] for k in range(12)]
    assert "\x1b" not in output  # no colours in a pipe


def test_a_long_run_prints_its_ends_and_some_rows_between(command, tmp_path):
    _, output, _ = command("--out", tmp_path, "--learning-rates", 0.5, "--num-iterations", 301)
    iterations = [int(line.split()[0]) for line in output.splitlines() if re.match(r" +\d+ ", line)]
    assert iterations[0] == 0 and iterations[-1] == 301 and len(iterations) <= 102


def test_iteration_0_alone_is_a_run(command, tmp_path):
    status, _, errors = command("--out", tmp_path, "--num-iterations", 0)
    assert (status, errors) == (0, "")
    assert len((tmp_path / "backprop.csv").read_text().splitlines()) == 7


def test_explain_is_printed_as_well(command, tmp_path):
    _, output, _ = command("--out", tmp_path, "--num-iterations", 1, "--explain", "--targets", 0.01, 0.99)
    assert backprop.explain((0.01, 0.99), 0.1) in output


def test_results_are_kept_unless_overwrite(command, tmp_path):
    (tmp_path / "backprop.csv").write_text("precious")
    status, output, errors = command("--out", tmp_path, "--num-iterations", 1)
    assert status == 2 and output == "" and len(errors.splitlines()) == 1
    assert "out already holds" in errors and "--overwrite" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["backprop.csv"]
    assert (tmp_path / "backprop.csv").read_text() == "precious"
    assert command("--out", tmp_path, "--num-iterations", 1, "--overwrite")[0] == 0
    assert (tmp_path / "backprop.csv").read_text().startswith("learning_rate,")


def test_a_full_disk_leaves_the_old_results_whole(command, tmp_path, monkeypatch):
    (tmp_path / "backprop.csv").write_text("precious")

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backprop, "write_sheets", no_space)  # the last of the three
    status, _, errors = command("--out", tmp_path, "--overwrite", "--num-iterations", 1)
    assert status == 2 and "No space left on device" in errors and len(errors.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["backprop.csv"]
    assert (tmp_path / "backprop.csv").read_text() == "precious"


@pytest.mark.parametrize(
    "args, message",
    [
        (["--learning-rates", "0"], "learning_rates must be > 0"),
        (["--learning-rates", "0.1", "-0.2"], "learning_rates must be > 0"),
        (["--learning-rates", "nan"], "learning_rates must be > 0"),
        (["--learning-rates", "inf"], "learning_rates must be > 0"),
        (["--learning-rates", "1e9"], "learning_rates must be > 0"),
        (["--learning-rates", "0.1", "0.10"], "learning_rates must differ"),
        (["--learning-rates"], "learning_rates takes 1 to 10"),
        (["--learning-rates", *"123456789", "10", "11"], "learning_rates takes 1 to 10"),
        (["--learning-rates", "fast"], "--learning-rates"),
        (["--targets", "0.5"], "targets takes 2"),
        (["--targets", "0.5", "0.5", "0.5"], "targets takes 2"),
        (["--targets", "0.5", "1.01"], "targets must be >= 0 and <= 1"),
        (["--targets", "nan", "0.5"], "targets must be >= 0 and <= 1"),
        (["--num-iterations", "-1"], "num_iterations must be a whole number from 0"),
        (["--num-iterations", "1000000000"], "num_iterations must be a whole number from 0"),
        (["--num-iterations", "1.5"], "--num-iterations"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(command, tmp_path, args, message):
    status, output, errors = command("--out", tmp_path / "new", *args)
    assert (status, output) == (2, "")
    assert message in errors and len(errors.splitlines()) == 1 and "Traceback" not in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_an_out_that_cannot_be_a_folder_is_one_sentence(command, tmp_path, name):
    (tmp_path / "file").write_text("precious")
    status, output, errors = command("--out", tmp_path / name, "--num-iterations", 1)
    assert (status, output) == (2, "")
    assert "out must be a folder" in errors and "--out" in errors and len(errors.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "precious"


def test_the_configuration_refuses_what_only_python_can_pass():
    for n in (1.5, True, "3"):
        with pytest.raises(InputError, match="num_iterations"):
            BackpropConfig(num_iterations=n)  # type: ignore[arg-type]


def test_whole_numbers_do_as_rates_and_targets():
    sheets = backprop.compute_sheets(BackpropConfig(learning_rates=(1, 2), targets=(0, 1), num_iterations=2))
    assert sheets.dtype == np.float64


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "jax_s6.backprop", "--out", str(tmp_path), "--num-iterations", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "backprop.xlsx").exists()
