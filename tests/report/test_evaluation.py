"""The evaluation that the page shows is that of the network."""

import base64

import numpy as np
import pytest

from jax_s6.report.evaluation import calibration


def test_confusion_and_mistakes_are_those_of_the_network(values, network, bars):
    evaluated, predictions = values["models"][0], network.predict(bars.test_images)
    confusion = np.array(evaluated["confusion"])
    assert confusion.sum() == 130 and np.trace(confusion) == (predictions == bars.test_labels).sum()
    assert confusion[3, predictions[3]] >= 1 and evaluated["num_mistakes"] == (predictions != bars.test_labels).sum()
    confidences = [mistake["probability"] for mistake in evaluated["mistakes"]]
    assert confidences == sorted(confidences, reverse=True) and len(confidences) == 30
    first = evaluated["mistakes"][0]
    image = np.frombuffer(base64.b64decode(first["image"]), np.uint8).reshape(28, 28)
    assert network.predict(image)[0] == first["prediction"] != first["label"]


def test_calibration_by_hand():
    bins, ece = calibration(np.array([0.95, 1.0, 0.55, 0.59]), np.array([True, False, True, True]))
    assert bins == [
        {"confidence": 0.57, "accuracy": 1.0, "count": 2}, {"confidence": 0.975, "accuracy": 0.5, "count": 2}
    ]  # fmt: skip
    assert ece == pytest.approx((0.43 + 0.475) / 2)
