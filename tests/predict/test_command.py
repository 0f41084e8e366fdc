"""``python -m jax_s6.predict``: its output lines, JSON, contact sheet, exit statuses and error messages."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from jax_s6 import cli
from jax_s6.predict import command
from jax_s6.predict.pictures import read_digit
from tests.predict.conftest import enlarge, to_png


def run(args, capsys):
    """The exit status, and what was printed."""
    status = 0
    try:
        cli.run(lambda: command.main([str(arg) for arg in args]))
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_lines_json_folders_globs_and_the_sheet(mnist, network, tmp_path, capsys, monkeypatch):
    (tmp_path / "notes.txt").write_text("not a picture")
    for i in range(3):
        to_png(tmp_path / f"{i}.png", 1 - enlarge(mnist[0][i]))
    status, out, err = run([tmp_path, "--sheet", tmp_path / "sheet.png"], capsys)
    lines = out.splitlines()
    assert status == 0 and err == "" and len(lines) == 3
    for i, line in enumerate(lines):
        assert line.startswith(f"{tmp_path / f'{i}.png'}  {mnist[1][i]}  ") and "%  (then " in line
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 300
    (tmp_path / "sheet.png").unlink()
    monkeypatch.setattr(command, "load_model", lambda run: network)  # which is compiled already
    status, out, _ = run([tmp_path / "[01].png", tmp_path / "2.png", "--json"], capsys)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["class"] for row in rows] == mnist[1][:3].tolist()
    probabilities = network.predict_proba(read_digit(tmp_path / "0.png"))[0]
    np.testing.assert_allclose(rows[0]["probabilities"], probabilities, rtol=1e-4, atol=1e-7)
    assert rows[0]["probability"] == max(rows[0]["probabilities"]) and len(rows[0]["probabilities"]) == 16


def test_a_file_that_cannot_be_used_does_not_stop_the_others(mnist, network, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "load_model", lambda run: network)
    paths = [to_png(tmp_path / "raw.png", mnist[0][0] / 255), to_png(tmp_path / "large.png", np.zeros((30, 31)))]
    status, out, err = run([*paths, "--raw"], capsys)
    assert status == 2 and len(out.splitlines()) == 1
    assert err == f"error: {tmp_path / 'large.png'} is 31x30, but raw needs 28x28 as in MNIST: leave --raw out\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "images must name at least one picture"),
        (["/nonexistent.png"], "/nonexistent.png does not exist: give a picture"),
        (["/nonexistent/*.png"], "matches no file"),
        (["{tmp}"], "is a folder without a picture"),
        (["{tmp}/words.png"], "cannot be read as a picture: give a whole PNG"),
        (["{tmp}/pipe"], "is not a file"),
        (["{tmp}/words.png", "--run", "/nonexistent"], "run /nonexistent does not exist"),
        (["{tmp}/words.png", "--run", "{tmp}"], "has no params.safetensors"),
        (["{tmp}/words.png", "--run", "{tmp}/words.png"], "cannot be read as safetensors"),
        (["{tmp}/words.png", "--sheet", "{tmp}/sheet.jpg"], "sheet must be the name of a .png file"),
        (["{tmp}/words.png", "--sheet", "{tmp}/words.png"], "words.png is one of the pictures: give another --sheet"),
        (["{tmp}/words.png", "--sheet", "{tmp}/no/sheet.png"], "no is no folder: give another --sheet"),
        (["{tmp}/words.png", "--run", ""], "--run is empty: give a value, or leave it out"),
        ([""], "an argument is empty"),
        (["{tmp}/words.png", "--rwa"], "--rwa"),
    ],
)
def test_bad_input_is_one_sentence(args, message, tmp_path, capsys):
    if args != ["{tmp}"]:
        (tmp_path / "words.png").write_text("words")
        os.mkfifo(tmp_path / "pipe")
    status, out, err = run([arg.format(tmp=tmp_path) for arg in args], capsys)
    assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err
