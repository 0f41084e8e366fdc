"""The sweep's command line: its files, its plan, what is refused, and several processes as one."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jax_s6 import cli
from jax_s6.config import TrainConfig
from jax_s6.data import load
from jax_s6.errors import InputError
from jax_s6.predict.command import load_model
from jax_s6.report import folder as report_folder
from jax_s6.runs.processes import DistributedConfig
from jax_s6.sweep import command as sweep_command
from jax_s6.sweep import report as sweep_report
from jax_s6.sweep.run import sweep
from jax_s6.train import command as train
from jax_s6.training import plan as grids
from tests.conftest import write_idx
from tests.faults.runs import PLAINEST
from tests.sweep.test_flags import parse

SETTINGS = ["--num-epochs", "2", *PLAINEST, "--batch-size", "32"]
GRID = "--learning-rate 0.01 0.02 0.05 --seed 1".split()


@pytest.fixture(scope="module")
def folder(bars, tmp_path_factory):
    """A part of the bars as four IDX files."""
    folder = tmp_path_factory.mktemp("idx")
    for prefix, part, count in (("train", "train", 128), ("t10k", "test", 50)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", getattr(bars, f"{part}_images")[:count, ..., 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", getattr(bars, f"{part}_labels")[:count])
    return folder


@pytest.fixture(scope="module")
def arguments(folder):
    return ["--data-dir", str(folder), *SETTINGS, *GRID]


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweeps") / "first"
    sweep_command.main([*arguments, "--devices", "2", "--out", str(out)])
    return out


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
        "lane", *grids.SETTINGS, "train_loss", "test_loss", "test_accuracy", "best_test_accuracy", "diverged_at",
    }  # fmt: skip
    assert [(row["learning_rate"], row["seed"], row["diverged_at"]) for row in rows] == [
        ("0.01", "1", ""), ("0.02", "1", ""), ("0.05", "1", ""),
    ]  # fmt: skip
    assert [(row["lane"], row["epoch"]) for row in history] == [(str(i), e) for i in range(3) for e in "12"]
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["num_lanes"] == 3 and summary["devices"] == 2 and summary["width"] == 1
    best = max(rows, key=lambda row: (float(row["test_accuracy"]), -float(row["test_loss"])))
    assert summary["best_lane"]["lane"] == int(best["lane"])
    assert all(summary[name] > 0 for name in ("model_images_per_second", "compile_seconds", "train_seconds"))
    with Image.open(finished / "sweep.png") as picture:
        assert picture.width > 1000


def test_tensorboard_predict_and_the_report_read_it(arguments, tmp_path):
    sweep_command.main([*arguments, "--devices", "2", "--out", str(tmp_path), "--tensorboard"])
    lanes = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert lanes == ["lane-00000", "lane-00001", "lane-00002"]
    events = EventAccumulator(str(tmp_path / "tensorboard" / "lane-00000")).Reload()
    assert len(events.Scalars("loss/test")) == 2
    found = report_folder.read_folder(tmp_path)
    assert [lane["label"] for lane in found.lanes] == ["rate 0.01", "rate 0.02", "rate 0.05"]
    best = json.loads((tmp_path / "summary.json").read_text())["best_lane"]["learning_rate"]
    config = train.read_config(tmp_path / "config.json")
    assert len(found.results) == 3 and found.config.optimizer.learning_rate == best == config.optimizer.learning_rate
    assert np.isfinite(load_model(tmp_path).logits(np.zeros((1, 28, 28), np.uint8))).all()


def test_finished_and_unfinished_folders_are_kept(finished, arguments, tmp_path, capsys):
    with pytest.raises(InputError, match="--overwrite"):
        sweep_command.main([*arguments, "--out", str(finished)])
    before = (finished / "sweep.csv").stat().st_mtime_ns
    sweep_command.main([*arguments, "--out", str(finished), "--resume"])
    assert "nothing to resume" in capsys.readouterr().out
    assert (finished / "sweep.csv").stat().st_mtime_ns == before
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="unfinished run: --resume to resume it"):
        sweep_command.main([*arguments, "--out", str(tmp_path)])


def test_dry_run_says_what_will_be_done_and_writes_nothing(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    sweep_command.main([*arguments, "--momentum", "0.8", "0.9", "--devices", "2", "--dry-run", "--out", str(out)])
    text = capsys.readouterr().out
    assert not out.exists()
    for part in ("6 lanes in 1 group", "momentum: 0.8, 0.9", "on 2 CPU devices, 1 lane at once", "MB a lane", "time: "):
        assert part in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--learning-rate 0.1 -2", "learning_rate must be > 0"),
        ("--learning-rate", "learning_rate must have at least one value"),
        ("--seed 1 1", "seed has the value 1 twice"),
        ("--batch-size 64 x", "batch-size"),
        ("--prune", "prune judges lanes on held-out images"),
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
        cli.run(lambda: sweep_command.main(args))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distributed": True, "coordinator": "a:1"}, "given together"),
        ({"distributed": True, "coordinator": "a", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"distributed": True, "coordinator": "a:1", "num_processes": 2, "process_id": 2}, "process_id must be >= 0"),
    ],
)
def test_bad_processes_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        DistributedConfig(**settings)


@pytest.mark.parametrize("swept", [{"momentum": 60}, {"learning_rate": 6, "optimizer": 2, "seed": 3}, {"seed": 1}])
@pytest.mark.parametrize("judged", ["test", "validation"])
def test_picture_is_drawn_for_any_grid_and_for_lost_lanes(tmp_path, swept, judged):
    values = {"momentum": np.linspace(0, 0.9, 60), "learning_rate": (0.1, 0.2, 0.5, 0.8, 1.0, 2.0), "seed": range(3)}
    values["optimizer"] = ("sgd", "adamw")
    plan = grids.make_plan(TrainConfig(), {name: values[name][:count] for name, count in swept.items()})
    history, rows = [], []
    for lane in range(plan.num_lanes):
        lost = lane == 1
        losses = [float("nan") if lost and epoch > 1 else 2.0 / epoch for epoch in (1, 2, 3)]
        history += [{"lane": lane, "epoch": e, f"{judged}_loss": loss} for e, loss in enumerate(losses, start=1)]
        accuracy = {f"{judged}_accuracy": 0.9}
        rows.append({"lane": lane, **plan.settings(lane), **accuracy, "diverged_at": 7 if lost else None})
    sweep_report.plot_sweep(tmp_path / "sweep.png", rows, history, plan.grid)
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.width > 1000


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def processes(arguments, out, count=2, started=(0, 1)):
    """Starts processes of one sweep on this machine, and ends those that are left."""
    common = [sys.executable, "-m", "jax_s6.sweep", *arguments, "--out", str(out), "--distributed"]
    common += ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", str(count), "--process-id"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [subprocess.Popen([*common, str(number)], **pipes) for number in started]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_two_processes_give_what_one_gives(arguments, finished, tmp_path):
    with processes(arguments, tmp_path) as running:
        outputs = [process.communicate(timeout=100)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert "epoch   2/2" in outputs[0] and "epoch" not in outputs[1], "only process 0 speaks"
    for name in ("sweep.csv", "history.csv"):
        assert (tmp_path / name).read_text() == (finished / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_death_of_a_process_ends_the_other_with_a_sentence(arguments, tmp_path, victim):
    with processes([*arguments, "--num-epochs", "9999"], tmp_path) as running:
        while not (tmp_path / "checkpoints" / "group-0" / "1.safetensors").exists():
            assert [process.poll() for process in running] == [None, None]
            time.sleep(0.2)
        os.kill(running[victim].pid, signal.SIGKILL)
        output, _ = running[1 - victim].communicate(timeout=60)
    assert "error: another process of the sweep was lost" in output and "Traceback" not in output
    assert running[1 - victim].returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_process_that_stays_alone_ends_with_a_sentence(arguments, tmp_path, number):
    with processes(arguments, tmp_path, started=(number,)) as (process,):
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and output.startswith("error: distributed: not all processes connected")


def test_python_gives_what_the_command_writes(finished, arguments):
    config, grid = parse(arguments)
    result = sweep(config, grid, load(config.data), devices=jax.devices()[:2])
    for row, written in zip(result.rows, read_csv(finished / "sweep.csv"), strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == written
