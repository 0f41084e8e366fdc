"""``python -m jax_s6.export``: bad input is one sentence and leaves no file."""

import sys

import pytest

from jax_s6 import cli
from jax_s6.export import command


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--format"),
        (["--format", "coreml"], "--format"),
        (["--format", "torch", "--out", "{tmp}"], "out must be a file"),
        (["--format", "torch", "--out", "{tmp}/there"], "--overwrite to replace it"),
        (["--format", "torch", "--out", "/proc/none/net"], "cannot be written to"),
        (["--format", "torch", "--run", "{tmp}", "--out", "{tmp}/new"], "has no params.safetensors"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(args, message, tmp_path, capsys):
    (tmp_path / "there").write_text("kept")
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: command.main([arg.format(tmp=tmp_path) for arg in args]))
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1 and message in printed.err
    assert [p.name for p in tmp_path.iterdir()] == ["there"] and (tmp_path / "there").read_text() == "kept"


def test_without_the_extra_the_sentence_names_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit):
        cli.run(lambda: command.main(["--format", "onnx", "--out", str(tmp_path / "m.onnx")]))
    assert "pip install 'jax-s6[onnx]'" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
