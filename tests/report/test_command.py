"""``python -m jax_s6.report``: one sentence for each folder or file that cannot be used."""

import shutil

import pytest

from jax_s6 import cli
from jax_s6.report.command import main


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "dirs must name at least one folder"),
        (["/nonexistent"], "does not exist"),
        (["{tmp}"], "has no summary.json"),
        (["{tmp}/broken"], "cannot be read"),
        (["{tmp}/list"], "cannot be read"),
        (["{run}", "--out", "{tmp}"], "out must be a file"),
        (["{run}", "--out", "/proc/none/x.html"], "cannot be written to"),
        (["{run}", "--out", "{tmp}/list/summary.json"], "is not an HTML page"),
        (["{tmp}/cut"], "history.csv and sweep.csv have different lanes"),
        (["{sweep}"], "no params.safetensors"),
    ],
)
def test_bad_input_is_one_sentence(args, message, run, sweep, tmp_path, capsys):
    for name, text in (("broken", "{"), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    shutil.copytree(sweep, tmp_path / "cut")
    (tmp_path / "cut" / "history.csv").write_text("lane,epoch\n")
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: main([a.format(tmp=tmp_path, run=run, sweep=sweep) for a in args]))
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1 and message in printed.err
