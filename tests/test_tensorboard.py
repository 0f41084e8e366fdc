"""TensorBoard's own reader finds what train and sweep wrote."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from jax_s6 import report_folder, sweep_command, tensorboard, train
from jax_s6.predict import load_model
from tests.conftest import write_idx
from tests.faults.runs import PLAINEST

HISTORY = [
    {"epoch": e, "train_loss": 1 / e, "test_loss": 2 / e, "test_accuracy": 0.4 * e, "seconds": 1} for e in (1, 2)
]


@pytest.fixture(scope="module")
def folder(bars, tmp_path_factory):
    folder = tmp_path_factory.mktemp("idx")
    for prefix, part, count in (("train", "train", 100), ("t10k", "test", 50)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", getattr(bars, f"{part}_images")[:count, ..., 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", getattr(bars, f"{part}_labels")[:count])
    return folder


def read(path):
    reader = EventAccumulator(str(path), size_guidance={"images": 0, "scalars": 0})
    return reader.Reload()


def test_a_run_has_scalars_filters_and_mistakes(folder, tmp_path):
    out = tmp_path / "run"
    flags = ["--data-dir", str(folder), *PLAINEST, "--num-epochs", "2", "--devices", "1"]
    train.main([*flags, "--out", str(out), "--tensorboard"])
    events = read(out / "tensorboard")
    assert set(events.Tags()["scalars"]) == {"loss/train", "accuracy/train", "loss/test", "accuracy/test"}
    rows = [line for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [e.step for e in events.Scalars("loss/test")] == [1, 2] and len(rows) == 2
    assert set(events.Tags()["images"]) == {"filters/conv1", "mistakes/most_confident"}
    with Image.open(io.BytesIO(events.Images("filters/conv1")[0].encoded_image_string)) as image:
        assert image.size == (15 * 16, 15 * 16)
    found = report_folder.read_folder(out)  # the report takes what train wrote
    assert [len(values) for values in found.lanes[0]["metrics"].values()] == [2, 2, 2, 2] and found.params


def test_a_lane_has_its_hyper_parameters_and_results(tmp_path):
    rows = [
        {"lane": k, "learning_rate": rate, "seed": k, "optimizer": "sgd", "test_accuracy": 0.8, "test_loss": 1.0}
        for k, rate in enumerate((0.1, 0.5))
    ]
    history = [{"lane": k, **row} for k in (0, 1) for row in HISTORY]
    for _ in range(2):  # a sweep that is replaced leaves nothing behind
        tensorboard.write_sweep(tmp_path, rows, history, ["learning_rate", "optimizer"])
    lane = tmp_path / "tensorboard" / "lane-00001"
    assert len(list(lane.iterdir())) == 1
    events = read(lane)
    assert [(e.step, round(e.value, 4)) for e in events.Scalars("accuracy/test")] == [(1, 0.4), (2, 0.8)]
    assert events.Scalars("final/test_accuracy")[0].value == pytest.approx(0.8)
    found = {}
    for content in events.summary_metadata.items():
        name, value = content
        if value.plugin_data.plugin_name == metadata.PLUGIN_NAME:
            found[name] = plugin_data_pb2.HParamsPluginData.FromString(value.plugin_data.content)
    start = found["_hparams_/session_start_info"].session_start_info.hparams
    assert start["learning_rate"].number_value == 0.5 and start["optimizer"].string_value == "sgd"
    experiment = found["_hparams_/experiment"].experiment
    assert {info.name for info in experiment.hparam_infos} == {"learning_rate", "optimizer"}


def test_the_sweeps_command_writes_a_folder_a_lane(folder, tmp_path):
    flags = [*PLAINEST, "--num-epochs", "1"]
    out = tmp_path / "sweep"
    sweep_command.main(
        ["--data-dir", str(folder), *flags, "--learning-rate", "0.01", "0.1", "--out", str(out), "--tensorboard"]
    )
    lanes = sorted(path.name for path in (out / "tensorboard").iterdir())
    assert lanes == ["lane-00000", "lane-00001"]
    assert len(read(out / "tensorboard" / "lane-00000").Scalars("loss/test")) == 1
    found = report_folder.read_folder(out)  # and what sweep wrote
    assert [lane["label"] for lane in found.lanes] == ["rate 0.01", "rate 0.1"] and len(found.results) == 2
    best = json.loads((out / "summary.json").read_text())["best_lane"]["learning_rate"]
    assert (
        found.config.optimizer.learning_rate == best == train.read_config(out / "config.json").optimizer.learning_rate
    )
    assert np.isfinite(load_model(out).logits(np.zeros((1, 28, 28), np.uint8))).all()


def test_tiles_are_where_they_belong():
    images = np.arange(1, 4, dtype=np.uint8)[:, None, None] * np.ones((3, 2, 2), np.uint8)
    expected = [[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [0] * 5, [3, 3, 0, 0, 0], [3, 3, 0, 0, 0]]
    np.testing.assert_array_equal(tensorboard._tile(images, 2, 1), expected)
