"""What a user can get wrong: exit status 2, one sentence that names it, nothing written, no traceback.

A row is the command's arguments and what the sentence must say. ``{name}`` is a path of the fixture ``places``. More
commands are more tables.
"""

import gzip
import importlib
import shlex
import subprocess
import sys

import numpy as np
import pytest

from jax_s6 import cli, config
from tests.conftest import write_idx
from tests.faults.runs import write_bars

# What train and sweep have in common.
SETTINGS = [
    ("--num-epochs 0", "num_epochs must be >= 1 and <= 10,000, got 0"),
    ("--num-epochs 10001", "num_epochs must be >= 1 and <= 10,000, got 10001"),
    ("--num-epochs -3", "num_epochs must be >= 1"),
    ("--num-epochs 1.5", "--num-epochs"),
    ("--num-epochs nan", "--num-epochs"),
    ("--num-epochs", "--num-epochs|num_epochs must have at least one value"),
    ("--batch-size 1", "batch_size must be >= 2, got 1"),
    ("--batch-size 0", "batch_size must be >= 2, got 0"),
    ("--batch-size many", "--batch-size"),
    ("--batch-size 501", "batch_size must be <= 500, the number of training images, got 501"),
    ("--batch-size 401 --holdout 100", "batch_size must be <= 400"),
    ("--batch-size 99999999999999999999", "batch_size must be <= 500"),
    ("--seed -1", "seed must be >= 0"),
    ("--seed 4294967296", "seed must be >= 0 and <= 4,294,967,295, got 4294967296"),
    ("--seed 1.5", "--seed"),
    ("--seed x", "--seed"),
    ("--learning-rate 0", "learning_rate must be > 0"),
    ("--learning-rate -0.1", "learning_rate must be > 0 and <= 1,000,000, got -0.1"),
    ("--learning-rate nan", "learning_rate must be > 0 and <= 1,000,000, got nan"),
    ("--learning-rate inf", "learning_rate must be > 0 and <= 1,000,000, got inf"),
    ("--learning-rate 1e7", "learning_rate must be > 0 and <= 1,000,000, got 10000000.0"),
    ("--learning-rate fast", "--learning-rate"),
    ("--learning-rate 0,1", "--learning-rate"),
    ("--momentum 1", "momentum must be >= 0 and <= 0.9999, got 1.0"),
    ("--momentum -0.1", "momentum must be >= 0"),
    ("--momentum nan", "momentum must be >= 0"),
    ("--weight-decay -1", "weight_decay must be >= 0 and <= 1"),
    ("--weight-decay inf", "weight_decay must be >= 0 and <= 1, got inf"),
    ("--label-smoothing 0.95", "label_smoothing must be >= 0 and <= 0.9, got 0.95"),
    ("--label-smoothing -0.1", "label_smoothing must be >= 0"),
    ("--dropout-conv1 1", "dropout_conv1 must be >= 0 and <= 0.9, got 1.0"),
    ("--dropout-conv2 -0.5", "dropout_conv2 must be >= 0"),
    ("--dropout-conv3 nan", "dropout_conv3 must be >= 0"),
    ("--rotation 181", "rotation must be >= 0 and <= 180"),
    ("--rotation -1", "rotation must be >= 0"),
    ("--shift 15", "shift must be >= 0 and <= 14, got 15.0"),
    ("--scale 1", "scale must be >= 0 and <= 0.9, got 1.0"),
    ("--shear 46", "shear must be >= 0 and <= 45, got 46.0"),
    ("--shear -inf", "--shear|shear must be >= 0"),
    ("--warmup-fraction 0", "warmup_fraction must be > 0 and <= 0.999, got 0.0"),
    ("--warmup-fraction 1", "warmup_fraction must be > 0"),
    ("--initial-fraction 2", "initial_fraction must be >= 0 and <= 1, got 2.0"),
    ("--final-fraction -1", "final_fraction must be >= 0"),
    ("--decay-rate 0", "decay_rate must be > 0 and <= 1, got 0.0"),
    ("--decay-rate 1.1", "decay_rate must be > 0 and <= 1, got 1.1"),
    ("--decay-epochs 0", "decay_epochs must be > 0, got 0.0"),
    ("--decay-epochs inf", "decay_epochs must be > 0, got inf"),
    ("--holdout -1", "holdout must be >= 0, got -1"),
    ("--holdout 500", "holdout must be >= 0 and < 500"),
    ("--holdout all", "--holdout"),
    ("--recipe bset", "--recipe"),
    ("--schedule triangle", "--schedule"),
    ("--optimizer adm", "--optimizer"),
    ("--precision float16", "--precision"),
    ("--convolution fft", "--convolution"),
    ("--dataset minst", "--dataset"),
    ("--nesterov yes", "yes"),
    ("--lerning-rate 1", "--learning-rate"),
    ("--num_epoch 3", "--num-epochs"),
    ("--epochs 3", "--epochs"),
    ("-x", "-x"),
    ("stray", "stray"),
    ("--devices 0", "devices must be >= 1 and <= 4, the cpu devices here, got 0"),
    ("--devices 5", "devices must be >= 1 and <= 4, the cpu devices here, got 5"),
    ("--devices -1", "devices must be >= 1"),
    ("--devices two", "--devices"),
    ("--checkpoint-every 0", "checkpoint_every must be >= 1, got 0"),
    ("--checkpoint-every -5", "checkpoint_every must be >= 1, got -5"),
    ("--checkpoint-every 0.5", "--checkpoint-every"),
    ("--keep 0", "keep must be >= 1, got 0"),
    ("--resume --overwrite", "resume continues a run and overwrite replaces it: give one of the two"),
    ("--recipe s6 --config {config}", "recipe and config exclude each other"),
    ("--config {missing}", "cannot be read"),
    ("--config {folder}", "cannot be read (.*directory"),
    ("--config {empty}", "is not JSON"),
    ("--config {text}", "is not JSON"),
    ("--config {binary}", "cannot be read"),
    ("--config {list}", "must hold a JSON object with settings, got list"),
    ("--config {unknown}", "has the unknown setting 'learning_rte'"),
    ("--config {nested}", "is not JSON"),
    ("--config {out_of_range}", "learning_rate must be > 0 .* got -1 .*out_of_range"),
    ("--config {wrong_type}", "seed must be a whole number, got 'zero'"),
    ("--config {section}", "must hold a JSON object with settings, got int"),
    ("--config", "config|--config"),
    ("--data-dir {missing}", "{missing} does not exist"),
    ("--data-dir {text}", "{text} is not a folder"),
    ("--data-dir {folder}", "{folder} has neither"),
    ("--data-dir {three}", "lacks t10k-labels-idx1-ubyte.gz; all four IDX files must be there"),
    ("--data-dir {swapped}", "must be an IDX file of images with magic number 2051, got 2049 (labels)"),
    ("--data-dir {truncated}", "promises 500 items in its header and holds only 499"),
    ("--data-dir {longer}", "promises 500 items in its header and holds more"),
    ("--data-dir {large_images}", "has images of 32x32, allowed are 28x28"),
    ("--data-dir {many_classes}", "has 200 classes, which do not fit the network's 16 outputs"),
    ("--data-dir {unequal}", "has 500 images but .* has 499 labels"),
    ("--data-dir {no_items}", "promises 0 items"),
    ("--data-dir {liar}", "promises 4294967295 items in its header, allowed are 1 to 1000000"),
    ("--data-dir {bad_gzip}", "cannot read .*train-images"),
    ("--data-dir {gzip_bomb}", "promises 500 items in its header and holds more"),
    ("--data-dir {not_idx}", "must be an IDX file of images"),
    ("--data-dir {bad_tfds}", "cannot read the prepared TFDS folder"),
    ("--data-dir {other_tfds}", "dataset is mnist, but the prepared TFDS folder .* holds 'kmnist'"),
    ("--out {text}", "out {text} cannot be written to (.*directory|exists"),
    ("--out {text}/below", "out {text}/below cannot be written to"),
    ("--out /proc/none", "out /proc/none cannot be written to"),
    ("--out {long_name}", "File name too long"),
    ("--out ''", "--out is empty: give a value, or leave it out"),
    ("--config=", "--config is empty: give a value, or leave it out"),
    ("--out {finished}", "out {finished} already holds a run: give another --out, or --overwrite to replace it"),
    ("--out {unfinished}", "out {unfinished} holds an unfinished run: --resume to resume it"),
]
TRAIN = [
    *SETTINGS,
    ("--devices 3", "devices must divide the batch_size 128, got 3"),
    ("--learning-rate 0.1 0.2", "0.2"),
    ("--seed", "--seed"),
    ("--prune", "--prune"),
]
SWEEP = [
    *SETTINGS,
    ("--learning-rate", "learning_rate must have at least one value, got none"),
    ("--learning-rate 0.1 -2", "learning_rate must be > 0"),
    ("--learning-rate 0.1 0.1", "learning_rate has the value 0.1 twice"),
    ("--seed 1 2 1", "seed has the value 1 twice"),
    ("--batch-size 64 x", "--batch-size"),
    ("--batch-size 64 501", "batch_size must be <= 500"),
    ("--schedule cosine cubic", "--schedule"),
    ("--prune", "prune judges lanes on held-out images, but holdout is 0: give --holdout"),
    ("--width 0", "width must be >= 1, got 0"),
    ("--width wide", "--width"),
    ("--distributed --devices 1 --coordinator a --num-processes 1 --process-id 0", "coordinator must be HOST:PORT"),
    ("--coordinator localhost:1", "coordinator, num_processes and process_id need --distributed: add it"),
    ("--distributed --process-id 0", "must be given together"),
    (
        "--distributed --coordinator a:1 --num-processes 2 --process-id 2",
        "process_id must be >= 0 and < num_processes 2",
    ),
    (
        "--learning-rate 0.1 --seed "
        + " ".join(map(str, range(120)))
        + " --momentum "
        + " ".join(f"0.{i}" for i in range(100, 1000)),
        "the grid must have <= 100,000 lanes, got 108,000",
    ),
]
BACKPROP = [
    ("--learning-rates", "learning_rates takes 1 to"),
    ("--learning-rates 0", "learning_rates must be > 0"),
    ("--learning-rates -1", "learning_rates must be > 0"),
    ("--learning-rates nan", "learning_rates must be > 0"),
    ("--learning-rates inf", "learning_rates must be > 0"),
    ("--learning-rates 0.1 0.1", "learning_rates must differ"),
    ("--learning-rates high", "--learning-rates"),
    ("--learning-rates " + " ".join(f"0.{i}" for i in range(1, 1000)), "learning_rates"),
    ("--targets 0.5", "targets takes 2 numbers"),
    ("--targets 0.5 0.5 0.5", "targets takes 2 numbers"),
    ("--targets 0.5 2", "targets must be >= 0 and <= 1"),
    ("--targets nan 0.5", "targets must be >= 0 and <= 1"),
    ("--num-iterations -1", "num_iterations must be a whole number from 0"),
    ("--num-iterations 1e3", "--num-iterations"),
    ("--num-iterations 99999999999", "num_iterations must be a whole number from 0"),
    ("--iterations 3", "--num-iterations"),
    ("--out {text}", "out must be a folder that can be written"),
    ("--out /proc/none", "out must be a folder that can be written"),
    ("--out {done_backprop}", "out already holds"),
]
COMMANDS = {"train": ("jax_s6.train.command", TRAIN), "sweep": ("jax_s6.sweep.command", SWEEP)}
ROWS = [(module, *row) for module, rows in COMMANDS.values() for row in rows]
ROWS += [("jax_s6.backprop.command", *row) for row in BACKPROP]


def write_configs(folder):
    """Writes files that are no configuration."""
    valid = config.to_json(config.RECIPES["best"])
    contents = {
        "config": valid,
        "empty": "",
        "text": "learning rate: high",
        "list": "[1, 2]",
        "unknown": '{"optimizer": {"learning_rte": 1}}',
        "nested": "[" * 100_000,
        "out_of_range": '{"optimizer": {"learning_rate": -1}}',
        "wrong_type": '{"seed": "zero"}',
        "section": '{"optimizer": 3}',
    }
    for name, text in contents.items():
        (folder / name).write_text(text)
    (folder / "binary").write_bytes(b"\x80\xff\x00")


def write_data(folder, bars):
    """Writes folders of IDX files, each wrong in its own way."""

    def damage(name, part="train-images-idx3-ubyte"):
        (folder / name).mkdir()
        return write_bars(folder / name, bars) / part

    write_bars(folder / "data", bars)
    damage("three", "t10k-labels-idx1-ubyte").unlink()
    path = damage("swapped")
    path.write_bytes((folder / "data" / "train-labels-idx1-ubyte").read_bytes())
    path = damage("truncated")
    path.write_bytes(path.read_bytes()[:-1])
    path = damage("longer")
    path.write_bytes(path.read_bytes() + b"x")
    write_idx(damage("large_images"), np.zeros((500, 32, 32), np.uint8))
    write_idx(damage("many_classes", "train-labels-idx1-ubyte"), np.full(500, 199, np.uint8))
    write_idx(damage("unequal", "train-labels-idx1-ubyte"), np.zeros(499, np.uint8))
    write_idx(damage("no_items"), np.zeros((0, 28, 28), np.uint8))
    path = damage("liar")
    path.write_bytes(path.read_bytes()[:4] + b"\xff\xff\xff\xff" + path.read_bytes()[8:])
    path = damage("bad_gzip")
    path.write_bytes(gzip.compress(path.read_bytes())[:-20])
    path = damage("gzip_bomb")
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(50_000_000)))
    damage("not_idx").write_bytes(b"\x89PNG\r\n" * 100)


@pytest.fixture(scope="module")
def places(bars, tmp_path_factory):
    """Makes every path that a row names."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "data").mkdir()
    (folder / "folder").mkdir()
    write_configs(folder)
    write_data(folder, bars)
    for name, text in (("bad_tfds", "{"), ("other_tfds", '{"name": "kmnist"}')):
        (folder / name / "mnist" / "3.0.1").mkdir(parents=True)
        (folder / name / "mnist" / "3.0.1" / "dataset_info.json").write_text(text)
    (folder / "finished").mkdir()
    (folder / "finished" / "summary.json").write_text("{}")
    (folder / "unfinished" / "checkpoints").mkdir(parents=True)
    (folder / "done_backprop").mkdir()
    (folder / "done_backprop" / "backprop.csv").write_text("")
    found = {path.name: path for path in folder.iterdir()}
    return {**found, "missing": folder / "missing", "long_name": folder / ("x" * 300), "root": folder}


def arguments_of(module, text, places):
    """Completes a row's arguments: data that are right and an output that could be written, unless it names its own."""
    args = shlex.split(text.format_map(places))
    if "--out" not in args:
        args += ["--out", str(places["root"] / "out")]
    if module != "jax_s6.backprop.command" and "--data-dir" not in args:
        args += ["--data-dir", str(places["data"])]
    return args


def listing(folder):
    return {path: (path.stat().st_mtime_ns if path.is_file() else 0) for path in folder.rglob("*")}


def assert_says(error, message, places):
    """Checks that one line names what is wrong: alternatives are separated by ``|``, ``.*`` stands for anything."""
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n"), error
    wanted = [text.split(".*") for text in message.format_map(places).split("|")]
    assert any(all(part in error for part in parts) for parts in wanted), f"{error!r} does not say {message!r}"


@pytest.mark.parametrize(("module", "text", "message"), ROWS, ids=[f"{m[7:]} {t[:60]}" for m, t, _ in ROWS])
def test_bad_input_is_one_sentence_and_writes_nothing(module, text, message, places, capsys, monkeypatch):
    args, before = arguments_of(module, text, places), listing(places["root"])
    monkeypatch.setattr(sys, "argv", ["command", *args])
    with pytest.raises(SystemExit) as stop:
        cli.run(importlib.import_module(module).main)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert_says(printed.err, message, places)
    assert printed.out == "" and listing(places["root"]) == before


def test_there_are_at_least_a_hundred():
    assert len({text for _, text, _ in ROWS}) >= 100


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        ("jax_s6.train", "--learning-rate nan", "learning_rate must be > 0"),
        ("jax_s6.sweep", "--prune", "prune judges lanes on held-out images"),
        ("jax_s6.backprop", "--targets 0.5 2", "targets must be >= 0 and <= 1"),
    ],
)
def test_as_a_process_it_is_the_same(module, text, message, places):
    command = [sys.executable, "-m", module, *arguments_of(module, text, places)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert_says(done.stderr, message, places)
