"""Evaluate a trained network on the test images: confusion matrix, mistakes and calibration, as plain numbers."""

import base64
from typing import Any

import numpy as np

from jax_s6.data import Dataset
from jax_s6.predict.model import Model

NUM_MISTAKES, NUM_BINS = 30, 10


def evaluate(network: Model, dataset: Dataset) -> dict[str, Any]:
    """Evaluate a network on every test image.

    Args:
        network: The network.
        dataset: The data set that it was trained for.

    Returns:
        ``confusion``, number of images by label and prediction; ``num_images``; ``num_mistakes``; ``mistakes``, the
        most confident ones, each image as base64 of 784 bytes; ``calibration`` and ``ece``, see ``calibration``.
    """
    labels, images = dataset.test_labels, dataset.test_images
    probabilities = network.predict_proba(images)
    predictions, confidence = probabilities.argmax(1), probabilities.max(1)
    size = max(dataset.num_classes, int(predictions.max()) + 1)
    confusion = np.zeros((size, size), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    wrong = np.flatnonzero(predictions != labels)
    bins, ece = calibration(confidence, predictions == labels)
    mistakes = [
        {
            "image": base64.b64encode(images[i].tobytes()).decode(),
            "label": int(labels[i]),
            "prediction": int(predictions[i]),
            "probability": round(float(confidence[i]), 5),
        }
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:NUM_MISTAKES]
    ]
    counts = {"num_images": len(labels), "num_mistakes": len(wrong)}
    return {"confusion": confusion.tolist(), **counts, "mistakes": mistakes, "calibration": bins, "ece": ece}


def calibration(confidence: np.ndarray, correct: np.ndarray) -> tuple[list[dict[str, float]], float]:
    """Compare the probabilities of the predictions with how often they are correct.

    Args:
        confidence: ``[n]``, the probability of each prediction, in ``[0, 1]``.
        correct: bool ``[n]``.

    Returns:
        The mean confidence, the accuracy and the number of images of each of ten equal bins, without empty ones; and
        the expected calibration error (Guo et al., 2017), the mean gap between the two weighted by number of images.
    """
    places = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    bins, ece = [], 0.0
    for number in range(NUM_BINS):
        inside = places == number
        if count := int(inside.sum()):
            mean, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
            ece += count * abs(mean - accuracy) / len(confidence)
            bins.append({"confidence": round(mean, 5), "accuracy": round(accuracy, 5), "count": count})
    return bins, round(ece, 6)
