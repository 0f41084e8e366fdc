"""The workbook: its formulas, its charts, and the numbers that LibreOffice computes from it."""

import csv
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest

from jax_s6.backprop import BackpropConfig, compute_sheets, workbook
from jax_s6.backprop.network import COLUMNS
from tests.backprop.conftest import CLASS, OTHER


def load(path: Path, *, data_only: bool = False) -> Any:
    """Opens a workbook. A type checker cannot follow the many types of openpyxl's cells."""
    return openpyxl.load_workbook(path, data_only=data_only)


@pytest.fixture(scope="module")
def book(written) -> Any:
    return load(written / "backprop.xlsx")


def read_tables(path: Path) -> np.ndarray:
    """Returns the numbers of all tabs' tables as the file holds them."""
    sheets = []
    for tab in load(path, data_only=True).worksheets:
        rows = list(tab.iter_rows(values_only=True))
        [top] = [k for k, row in enumerate(rows) if row[0] == "iteration"]
        assert tuple(name.replace("dE/", "dE_") for name in rows[top][1:28]) == COLUMNS
        sheets.append([row[1:28] for row in rows[top + 1 :]])
    return np.array(sheets, dtype=float)


def test_the_workbook_has_one_tab_of_formulas_per_rate(book):
    assert book.sheetnames == ["rate 0.1", "rate 0.2", "rate 0.5", "rate 0.8", "rate 1.0", "rate 2.0"]
    for tab, rate in zip(book.worksheets, CLASS.learning_rates, strict=True):
        table = tab.iter_rows(min_row=workbook.TABLE_ROW + 1, min_col=2, max_col=28)
        assert all(str(cell.value).startswith("=") for row in table for cell in row)
        labels = {row[0].value: row[1].value for row in tab.iter_rows(max_row=workbook.HEADER_ROW, max_col=2)}
        assert labels["learning rate"] == rate and labels["w8"] == 0.55
        assert len(tab._images) == 1  # the network


def test_a_viewer_that_does_not_calculate_shows_the_numbers(written, class_sheets):
    np.testing.assert_allclose(read_tables(written / "backprop.xlsx"), class_sheets, rtol=0, atol=1e-15)


def test_each_tab_charts_its_own_error(book):
    for tab in book.worksheets:
        [chart] = tab._charts
        assert type(chart).__name__ == "LineChart"
        [series] = chart.series
        header = {cell.value: cell.column_letter for cell in tab[workbook.HEADER_ROW + 1]}
        first, last = workbook.TABLE_ROW + 1, workbook.TABLE_ROW + 68
        assert series.val.numRef.f == f"'{tab.title}'!${header['E']}${first}:${header['E']}${last}"
        assert series.cat.numRef.f == f"'{tab.title}'!$A${first}:$A${last}"
        assert chart.x_axis.title and chart.y_axis.title and chart.title


@pytest.fixture
def recalculate(tmp_path_factory):
    """Returns a function that has LibreOffice recalculate workbooks and returns the folder of the results."""
    soffice = shutil.which("soffice")
    if soffice is None:
        pytest.skip("needs soffice (apt-get install --no-install-recommends libreoffice-calc)")
    profile = tmp_path_factory.mktemp("profile")
    (profile / "user").mkdir()
    # 0 means "always": by default LibreOffice trusts the numbers in a file written by "Microsoft Excel".
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
def test_libreoffice_recalculates_the_workbook_to_the_numbers_of_the_csv(recalculate, written, tmp_path):
    """The formulas are live and right: LibreOffice replaces wrong numbers in their cells by those of the CSV."""
    configs = {"class": CLASS, "other": OTHER}
    for name, config in configs.items():
        wrong = np.full((6, config.num_iterations + 1, len(COLUMNS)), -7.0)
        workbook.write_workbook(tmp_path / f"{name}.xlsx", wrong, config)
        assert (read_tables(tmp_path / f"{name}.xlsx") == -7.0).all()
    changed = load(tmp_path / "class.xlsx")
    for row in changed["rate 0.1"].iter_rows(max_row=workbook.HEADER_ROW, max_col=2):
        if row[0].value == "learning rate":
            row[1].value = 3.5
    changed.save(tmp_path / "changed.xlsx")
    out = recalculate(written / "backprop.xlsx", *(tmp_path / f"{name}.xlsx" for name in (*configs, "changed")))

    with (written / "backprop.csv").open(newline="") as file:
        numbers = np.array(list(csv.reader(file))[1:], dtype=float).reshape(6, 68, 29)[:, :, 2:]
    for name in ("backprop", "class"):
        np.testing.assert_allclose(read_tables(out / f"{name}.xlsx"), numbers, rtol=0, atol=1e-12)
    np.testing.assert_allclose(read_tables(out / "other.xlsx"), compute_sheets(OTHER), rtol=0, atol=1e-12)
    faster = compute_sheets(BackpropConfig(learning_rates=(3.5,)))[0]
    np.testing.assert_allclose(read_tables(out / "changed.xlsx")[0], faster, rtol=0, atol=1e-12)
