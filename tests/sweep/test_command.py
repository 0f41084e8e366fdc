"""The sweep's command: its files, what is already there, --dry-run, and what is refused."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jax_s6 import cli
from jax_s6.data import load
from jax_s6.errors import InputError
from jax_s6.predict import load_model
from jax_s6.report import folder as report_folder
from jax_s6.sweep import command, sweep
from jax_s6.training.plan import SETTINGS
from tests.sweep.test_flags import parse


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_files_are_those_promised_and_nothing_else(finished):
    assert sorted(p.name for p in finished.iterdir()) == [
        "config.json", "history.csv", "params.safetensors", "summary.json", "sweep.csv", "sweep.png",
    ]  # fmt: skip
    rows, history = read_csv(finished / "sweep.csv"), read_csv(finished / "history.csv")
    assert list(rows[0])[:3] == ["lane", "learning_rate", "seed"]
    assert set(rows[0]) == {
        "lane", *SETTINGS, "train_loss", "test_loss", "test_accuracy", "best_test_accuracy", "validation_loss",
        "validation_accuracy", "diverged_at",
    }  # fmt: skip
    assert [(row["learning_rate"], row["seed"], row["diverged_at"]) for row in rows] == [
        ("0.01", "1", ""), ("0.02", "1", ""), ("0.05", "1", ""),
    ]  # fmt: skip
    assert [(row["lane"], row["epoch"]) for row in history] == [(str(i), e) for i in range(3) for e in "12"]
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["num_lanes"] == 3 and summary["devices"] == 2 and summary["width"] == 1
    best = max(rows, key=lambda row: (float(row["validation_accuracy"]), -float(row["validation_loss"])))
    assert summary["best_lane"]["lane"] == int(best["lane"])
    assert all(summary[name] > 0 for name in ("model_images_per_second", "compile_seconds", "train_seconds"))
    with Image.open(finished / "sweep.png") as picture:
        assert picture.width > 1000


def test_tensorboard_predict_and_the_report_read_it(arguments, tmp_path, capsys):
    command.main([*arguments, "--devices", "2", "--out", str(tmp_path), "--tensorboard"])
    lanes = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert lanes == ["lane-00000", "lane-00001", "lane-00002"]
    events = EventAccumulator(str(tmp_path / "tensorboard" / "lane-00000")).Reload()
    assert len(events.Scalars("loss/test")) == 2
    found = report_folder.read_folder(tmp_path)
    assert [lane["label"] for lane in found.lanes] == [f"learning rate {rate}" for rate in (0.01, 0.02, 0.05)]
    best = json.loads((tmp_path / "summary.json").read_text())["best_lane"]["learning_rate"]
    config = cli.read_config(tmp_path / "config.json")
    assert len(found.results) == 3 and found.config.optimizer.learning_rate == best == config.optimizer.learning_rate
    assert np.isfinite(load_model(tmp_path).logits(np.zeros((1, 28, 28), np.uint8))).all()
    printed = capsys.readouterr().out
    plan, epoch_1, epoch_2, table = (printed.find(text) for text in ("3 lanes", "1/2", "2/2", "chosen"))
    assert 0 <= plan < epoch_1 < epoch_2 < table, "the plan, one line per epoch, the table"


def test_finished_and_unfinished_folders_are_kept(finished, arguments, tmp_path, capsys):
    with pytest.raises(InputError, match="--overwrite"):
        command.main([*arguments, "--out", str(finished)])
    before = (finished / "sweep.csv").stat().st_mtime_ns
    command.main([*arguments, "--out", str(finished), "--resume"])
    assert "nothing to resume" in capsys.readouterr().out
    assert (finished / "sweep.csv").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="the grid is .* here but .* in the finished run"):
        command.main([*arguments, "--weight-decay", "0", "0.1", "--out", str(finished), "--resume"])
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="unfinished run: --resume to resume it"):
        command.main([*arguments, "--out", str(tmp_path)])


def test_dry_run_says_what_will_be_done_and_writes_nothing(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    command.main([*arguments, "--momentum", "0.8", "0.9", "--devices", "2", "--dry-run", "--out", str(out)])
    text = capsys.readouterr().out
    assert not out.exists()
    for part in (
        "6 lanes in 1 group",
        "momentum: 0.8, 0.9",
        "on 2 CPU devices, 1 lane at once",
        "MB per lane",
        "time: ",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--learning-rate 0.1 -2", "learning_rate must be > 0"),
        ("--learning-rate", "learning_rate must have at least one value"),
        ("--seed 1 1", "seed has the value 1 twice"),
        ("--batch-size 64 x", "batch-size"),
        ("--prune", "prune ranks lanes by held-out images"),
        ("--width 0", "width must be >= 1"),
        ("--devices 99", "devices must be >= 1"),
        ("--resume --overwrite", "give one of the two"),
        ("--coordinator localhost:1", "need --distributed"),
        ("--config nowhere.json", "nowhere.json cannot be read"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_status_2(args, message, folder, tmp_path, capsys):
    args = [*args.split(), "--data-dir", str(folder), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: command.main(args))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_python_gives_what_the_command_writes(finished, arguments):
    config, grid = parse(arguments)
    result = sweep(config, grid, load(config.data), devices=jax.devices()[:2])
    for row, written in zip(result.rows, read_csv(finished / "sweep.csv"), strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == written
