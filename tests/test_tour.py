"""The notebook runs from top to bottom, and is stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[1] / "jax_s6" / "tour.ipynb"


def test_the_notebook_has_no_outputs_and_short_cells():
    cells = nbformat.read(TOUR, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert len(code) < len(cells) and all(len(cell.source.splitlines()) <= 22 for cell in code)


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs_and_shows_what_its_text_announces(tmp_path):
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert "11,952 parameters" in text and "conv3, layer 1  (1, 1, 1, 16)" in text
    assert text.count("learning rate ") >= 6 and " of 10,000 predictions are correct" in text
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 5
