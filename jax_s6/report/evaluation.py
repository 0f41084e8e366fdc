"""What a trained network does on test images, as plain numbers: confusion, mistakes, calibration. Draws nothing."""

import base64
from typing import Any

import jax
import numpy as np

from jax_s6.data.dataset import Dataset
from jax_s6.predict.model import Model

NUM_MISTAKES, NUM_BINS = 30, 10
# Of the six convolutions in order: stride, and whether 2x2 max-pooling follows.
LAYERS = (("conv1", 1, False), ("conv1", 2, True), ("conv2", 1, False), ("conv2", 2, True), ("conv3", 1, False),
          ("conv3", 2, False))  # fmt: skip


def judge(network: Model, dataset: Dataset) -> dict[str, Any]:
    """Judges a network on every test image.

    Args:
        network: The network.
        dataset: What it was trained for.

    Returns:
        ``confusion`` (labels x answers, as far as outputs are used), ``num_images``, ``num_mistakes``, ``mistakes``
        (the most confident ones, images as base64 of 784 bytes), ``calibration`` (bins of the answer's probability
        that hold images) and ``ece``, the expected calibration error (Guo et al., 2017).
    """
    labels, images = dataset.test_labels, dataset.test_images
    probabilities = network.predict_proba(images)
    answers, confidence = probabilities.argmax(1), probabilities.max(1)
    size = max(dataset.num_classes, int(answers.max()) + 1)
    confusion = np.zeros((size, size), np.int64)
    np.add.at(confusion, (labels, answers), 1)
    wrong = np.flatnonzero(answers != labels)
    bins, ece = calibration(confidence, answers == labels)
    mistakes = [
        {
            "image": base64.b64encode(images[i].tobytes()).decode(),
            "label": int(labels[i]),
            "answer": int(answers[i]),
            "probability": round(float(confidence[i]), 5),
        }
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:NUM_MISTAKES]
    ]
    return {
        "confusion": confusion.tolist(),
        "num_images": len(labels),
        "num_mistakes": len(wrong),
        "mistakes": mistakes,
        "calibration": bins,
        "ece": ece,
    }


def calibration(confidence: np.ndarray, correct: np.ndarray) -> tuple[list[dict[str, float]], float]:
    """Compares the answers' probabilities with how often they are right.

    Args:
        confidence: ``[n]`` in ``[0, 1]``.
        correct: bool ``[n]``.

    Returns:
        The mean confidence, accuracy and count of each of ten equal bins that is not empty; and the mean gap between
        the two, weighted by count.
    """
    places = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    bins, gap = [], 0.0
    for number in range(NUM_BINS):
        inside = places == number
        if count := int(inside.sum()):
            sure, right = float(confidence[inside].mean()), float(correct[inside].mean())
            gap += count * abs(sure - right) / len(confidence)
            bins.append({"confidence": round(sure, 5), "accuracy": round(right, 5), "count": count})
    return bins, round(gap, 6)


def pack_weights(network: Model) -> str:
    """Packs the six convolutions for the page: kernel (HWIO), bias, and batch normalisation as scale and shift.

    Returns:
        Base64 of little-endian float32.
    """
    parts = []
    for number, (block, _, _) in enumerate(LAYERS):
        conv, norm = f"conv_{number % 2}", f"norm_{number % 2}"
        params, stats = (network.variables[kind][block] for kind in ("params", "batch_stats"))
        scale = params[norm]["scale"].astype(np.float64) / np.sqrt(stats[norm]["var"].astype(np.float64) + 1e-5)
        shift = params[norm]["bias"] - stats[norm]["mean"] * scale
        parts += [params[conv]["kernel"], params[conv]["bias"], scale, shift]
    return base64.b64encode(np.concatenate([np.ravel(p) for p in parts]).astype("<f4").tobytes()).decode()


def layer_rows(network: Model) -> list[list[str]]:
    """Lists block, layer, output size, receptive field, stride against the image, and parameters."""
    rows, size, field, jump = [], 28, 1, 1
    for number, (block, stride, pool) in enumerate(LAYERS):
        conv, norm = f"conv_{number % 2}", f"norm_{number % 2}"
        layer = {name: network.variables["params"][block][name] for name in (conv, norm)}
        count = sum(x.size for x in jax.tree.leaves(layer))
        size, field, jump = (size - 1) // stride + 1, field + 2 * jump, jump * stride
        name = f"Conv3x3{' /2' if stride == 2 else ''}, ReLU, BN"
        rows.append([block, name, f"{size}x{size}x16", f"{field}x{field}", f"{jump}", f"{count:,}"])
        if pool:
            size, field, jump = size // 2, field + jump, jump * 2
            rows.append([block, "MaxPool2", f"{size}x{size}x16", f"{field}x{field}", f"{jump}", "0"])
    rows.append(["head", "Global average pooling, log-softmax", "16", f"{field}x{field}", f"{jump}", "0"])
    total = sum(x.size for x in jax.tree.leaves(network.variables["params"]))
    return [*rows, ["total", "", "", "", "", f"{total:,}"]]
