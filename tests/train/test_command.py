"""The command: its files, --config, and one sentence with exit status 2 for what a user can get wrong."""

import io
import json

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jax_s6 import cli
from jax_s6.config import RECIPES
from jax_s6.errors import InputError
from jax_s6.report import folder as report_folder
from jax_s6.train import command as train
from tests.faults.runs import assert_same, results
from tests.train.conftest import SETTINGS


def read_summary(out):
    return json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)


def test_summary_says_what_is_promised(run):
    summary = read_summary(run)
    expected = {"recipe": "best", "seed": 0, "num_params": 11_952, "num_epochs": 4, "batch_size": 128}
    assert expected.items() <= summary.items()
    fractions = ("train_accuracy", "test_accuracy", "validation_accuracy", "best_test_accuracy")
    assert all(0 <= summary[name] <= 1 for name in fractions)
    assert summary["best_test_accuracy"] >= summary["test_accuracy"]
    assert summary["best_epoch"] in (1, 2, 3, 4) and summary["diverged_at"] is None
    assert all(summary[name] > 0 for name in ("compile_seconds", "train_seconds", "images_per_second", "test_loss"))
    assert summary["config"]["optimizer"]["learning_rate"] == 0.15
    assert {"versions", "device", "machine", "data_checksum"} <= summary.keys()


def test_metrics_have_one_line_per_epoch(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["test_accuracy"] == read_summary(run)["test_accuracy"]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_tensorboard_has_scalars_filters_and_mistakes(folder, tmp_path, capsys):
    train.main(["--data-dir", str(folder), *SETTINGS, "--out", str(tmp_path), "--tensorboard"])
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0, "scalars": 0}).Reload()
    expected = {f"{what}/{split}" for what in ("loss", "accuracy") for split in ("train", "test", "validation")}
    assert set(events.Tags()["scalars"]) == expected
    assert [event.step for event in events.Scalars("loss/test")] == [1, 2, 3, 4]
    assert set(events.Tags()["images"]) == {"filters/conv1", "mistakes/most_confident"}
    with Image.open(io.BytesIO(events.Images("filters/conv1")[0].encoded_image_string)) as image:
        assert image.size == (15 * 16, 15 * 16)
    found = report_folder.read_folder(tmp_path)  # the report takes what train wrote
    assert {len(values) for values in found.lanes[0]["metrics"].values()} == {4} and found.params
    text = capsys.readouterr().out
    for part in (
        "11,952",
        "epoch   1  train loss ",
        "epoch   4",
        "validation ",
        "this run",
        f"results are in {tmp_path}",
    ):
        assert part in text.replace("\n", ""), part


def test_picture_is_a_png_and_no_part_is_left(run):
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in run.iterdir()}
    assert names == {"summary.json", "metrics.jsonl", "curves.png", "config.json", "params.safetensors", "checkpoints"}


def test_config_file_repeats_the_run_exactly(run, tmp_path):
    """All files are the same but for times: random numbers, sums, and the order of what is written."""
    train.main(["--config", str(run / "config.json"), "--out", str(tmp_path / "again")])
    assert_same(results(tmp_path / "again"), results(run))
    for name in ("config.json", "params.safetensors", "curves.png"):
        assert (run / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_run_that_diverged_leaves_all_files_and_no_nan(folder, tmp_path):
    """JSON has no NaN; a reader in another language would refuse the file."""
    flags = "--learning-rate 1e6 --weight-decay 1 --initial-fraction 1".split()
    train.main(["--data-dir", str(folder), *SETTINGS, *flags, "--out", str(tmp_path)])
    summary = read_summary(tmp_path)
    assert 0 < summary["diverged_at"] < 12 and summary["train_loss"] is None
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert (tmp_path / "curves.png").exists()


def test_flags_change_a_recipe():
    command = train.parse_command(["--recipe", "s6", "--seed", "3", "--nesterov"])
    assert command.run.recipe == "s6" and command.run.seed == 3 and command.run.optimizer.nesterov
    assert command.run.model == RECIPES["s6"].model


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-epochs", "0"], "num_epochs must be >= 1"),
        (["--learning-rate", "-0.1"], "learning_rate must be > 0"),
        (["--learning-rate", "nan"], "learning_rate must be > 0"),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--seed", "1.5"], "--seed"),
        (["--batch-size", "501"], "batch_size must be <= 500, the number of training images"),
        (["--batch-size", "401", "--holdout", "100"], "batch_size must be <= 400"),
        (["--holdout", "500"], "holdout must be >= 0 and < 500"),
        (["--devices", "0"], "devices must be >= 1"),
        (["--devices", "5"], "devices must be >= 1 and <= 4"),
        (["--devices", "3", "--batch-size", "50"], "devices must divide the batch_size 50"),
        (["--recipe", "bset"], "--recipe"),
        (["--schedule", "triangle"], "--schedule"),
        (["--dataset", "minst"], "--dataset"),
        (["--data-dir", "/nonexistent"], "/nonexistent does not exist"),
        (["--recipe", "s6", "--config", "x.json"], "recipe and config exclude each other"),
        (["--config", "/nonexistent.json"], "config /nonexistent.json cannot be read"),
        (["--out", "/proc/run"], "out /proc/run cannot be written to"),
        (["--lerning-rate", "1"], "--lerning-rate, 1; did you mean --learning-rate?"),
        (["--dropout-conv1", "0.95"], "dropout_conv1 must be >= 0 and <= 0.9"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(flags, message, folder, tmp_path, capsys):
    base = [] if "--data-dir" in flags else ["--data-dir", str(folder)]
    base += [] if "--out" in flags else ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: train.main([*base, *flags]))
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and message in printed.err
    assert printed.out == "" and not (tmp_path / "out").exists()


def test_an_existing_run_is_kept(run, folder, capsys):
    before = (run / "summary.json").read_bytes()
    with pytest.raises(SystemExit):
        cli.run(lambda: train.main(["--data-dir", str(folder), "--out", str(run)]))
    assert "--overwrite" in capsys.readouterr().err
    assert (run / "summary.json").read_bytes() == before


def test_a_finished_run_is_not_resumed(run, folder, capsys):
    before = (run / "summary.json").stat().st_mtime_ns
    train.main(["--data-dir", str(folder), *SETTINGS, "--out", str(run), "--resume"])
    assert "is complete: nothing to resume" in capsys.readouterr().out.replace("\n", "")
    assert (run / "summary.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="seed is 7 here but 0 in the finished run"):
        train.main(["--data-dir", str(folder), *SETTINGS, "--seed", "7", "--out", str(run), "--resume"])


def test_help_shows_ranges_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        train.parse_command(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stop.value.code == 0
    assert "Peak learning rate. Allowed: > 0 and <= 1000000. (default: 0.15)" in text and "--num-epochs" in text
