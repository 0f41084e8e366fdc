"""TensorBoard's own reader finds what was written. The tests of train and sweep show that these commands write it."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from jax_s6.runs import tensorboard

HISTORY = [
    {"epoch": e, "train_loss": 1 / e, "test_loss": 2 / e, "test_accuracy": 0.4 * e, "seconds": 1} for e in (1, 2)
]


def read(path):
    reader = EventAccumulator(str(path), size_guidance={"images": 0, "scalars": 0})
    return reader.Reload()


def test_a_lane_has_its_hyper_parameters_and_results(tmp_path):
    rows = [
        {"lane": k, "learning_rate": rate, "seed": k, "optimizer": "sgd", "test_accuracy": 0.8, "test_loss": 1.0}
        for k, rate in enumerate((0.1, 0.5))
    ]
    history = [{"lane": k, **row} for k in (0, 1) for row in HISTORY]
    for _ in range(2):  # nothing is left of a sweep that is replaced
        tensorboard.write_sweep(tmp_path, rows, history, ["learning_rate", "optimizer"])
    lane = tmp_path / "tensorboard" / "lane-00001"
    assert len(list(lane.iterdir())) == 1
    events = read(lane)
    assert [(e.step, round(e.value, 4)) for e in events.Scalars("accuracy/test")] == [(1, 0.4), (2, 0.8)]
    assert events.Scalars("final/test_accuracy")[0].value == pytest.approx(0.8)
    found = {}
    for name, value in events.summary_metadata.items():
        if value.plugin_data.plugin_name == metadata.PLUGIN_NAME:
            found[name] = plugin_data_pb2.HParamsPluginData.FromString(value.plugin_data.content)
    start = found["_hparams_/session_start_info"].session_start_info.hparams
    assert start["learning_rate"].number_value == 0.5 and start["optimizer"].string_value == "sgd"
    experiment = found["_hparams_/experiment"].experiment
    assert {info.name for info in experiment.hparam_infos} == {"learning_rate", "optimizer"}


def test_the_most_confident_mistakes_come_first(bars):
    probabilities = np.full((len(bars.test_labels), 16), 0.01, np.float32)
    probabilities[np.arange(len(probabilities)), bars.test_labels] = 0.8
    probabilities[[7, 11], 15] = 0.85, 0.9
    expected = tensorboard._tile(bars.test_images[[11, 7], ..., 0], 5, 3)
    np.testing.assert_array_equal(tensorboard.mistake_image(probabilities, bars), expected)
    assert tensorboard.mistake_image(np.eye(16, dtype=np.float32)[bars.test_labels], bars) is None


def test_tiles_are_where_they_belong():
    images = np.arange(1, 4, dtype=np.uint8)[:, None, None] * np.ones((3, 2, 2), np.uint8)
    expected = [[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [0] * 5, [3, 3, 0, 0, 0], [3, 3, 0, 0, 0]]
    np.testing.assert_array_equal(tensorboard._tile(images, 2, 1), expected)
