"""Measure the test accuracy of a recipe over several seeds: ``python -m benchmarks.studies.accuracy``.

Trains seeds 0 to 9 as ``python -m jax_s6.train --seed SEED`` does, and evaluates the test images after the last epoch.
Writes ``accuracy.json`` and ``accuracy.png``: the accuracy by epoch, the confusion matrix, and the images that most of
the networks get wrong.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_s6 import backend, data
from jax_s6.config import RECIPES, TrainConfig
from jax_s6.network import net as model
from jax_s6.runs.files import make_folder, replacing, write_json
from jax_s6.runs.score_card import GOAL
from jax_s6.sweep import SweepResult, sweep
from jax_s6.sweep.console import SweepLines

NUM_HARDEST = 32


def main() -> None:
    """Train the seeds, and write the figures and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.accuracy", description=__doc__)
    parser.add_argument("--recipe", default="best", choices=list(RECIPES), help="the settings to train with")
    parser.add_argument("--seeds", type=int, default=10, help="number of networks, >= 2")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    options = parser.parse_args()
    make_folder(options.out)  # before the training, which takes minutes
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    config = RECIPES[options.recipe]
    dataset = data.load(config.data)
    result = sweep(config, {"seed": range(options.seeds)}, dataset, listener=SweepLines("lane epochs"))
    predictions = predict(config, result, dataset.test_images)
    by_epoch = np.array([row["test_accuracy"] for row in result.history]).reshape(len(result.rows), -1)
    found = summarize(result, by_epoch)
    stem = "accuracy" if options.recipe == "best" else f"accuracy-{options.recipe}"
    write_json(options.out / f"{stem}.json", found)
    with replacing(options.out / f"{stem}.png") as part:
        plot(part, by_epoch, predictions, dataset)
    print(json.dumps({name: found[name] for name in ("n", "mean", "sd", "seeds_at_goal", "test_accuracy")}))


def summarize(result: SweepResult, by_epoch: np.ndarray) -> dict[str, Any]:
    """Return the accuracies of all seeds after the last epoch, and after each epoch: ``by_epoch[seed, epoch]``."""
    accuracies = [row["test_accuracy"] for row in result.rows]
    return {
        "n": len(accuracies),
        "mean": statistics.mean(accuracies),
        "sd": statistics.stdev(accuracies),
        "seeds_at_goal": sum(accuracy >= GOAL for accuracy in accuracies),
        "test_accuracy": accuracies,
        "test_accuracy_by_epoch": by_epoch.tolist(),
        "summary": result.summary,
    }


def predict(config: TrainConfig, result: SweepResult, images: np.ndarray) -> np.ndarray:
    """Return the predictions of every seed's network, int ``[seeds, images]``."""
    net = model.create(config.model)
    apply = jax.jit(lambda variables, batch: jnp.argmax(jnp.asarray(net.apply(variables, batch)), -1))
    parts = np.split(images, len(images) // 500)
    lanes = [jax.tree.map(lambda x, lane=lane: x[lane], result.variables) for lane in range(len(result.rows))]
    return np.stack([np.concatenate([np.asarray(apply(lane, part)) for part in parts]) for lane in lanes])


def plot(path: Path, by_epoch: np.ndarray, predictions: np.ndarray, dataset: data.Dataset) -> None:
    """Draw the accuracy by epoch, the confusion matrix, and the images that most networks get wrong."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 10.5), layout="constrained", dpi=130)
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.3))
    top, bottom = halves
    left, right = top.subplots(1, 2, width_ratios=(1.5, 1))
    _plot_accuracies(left, 100 * by_epoch)
    _plot_confusion(right, predictions, dataset.test_labels)
    _plot_hardest(bottom, predictions, dataset)
    figure.savefig(path)


def _plot_accuracies(axis: Any, accuracies: np.ndarray) -> None:
    epochs, final = np.arange(1, accuracies.shape[1] + 1), accuracies[:, -1]
    axis.fill_between(epochs, accuracies.min(0), accuracies.max(0), alpha=0.25, label="from the worst to the best")
    axis.plot(epochs, accuracies.mean(0), marker=".", label=f"mean of {len(final)} networks")
    axis.axhline(100 * GOAL, color="grey", linestyle="--", linewidth=1, label="the assignment's goal: 99.4 %")
    deviation = f"standard deviation {final.std(ddof=1):.2f} %"
    axis.set_title(f"Test accuracy after the last epoch: mean {final.mean():.2f} %, {deviation}")
    axis.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(max(97.0, accuracies[:, 1:].min() - 0.1), 99.7))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")


def _plot_confusion(axis: Any, predictions: np.ndarray, labels: np.ndarray) -> None:
    counts = np.zeros((10, 10))
    wrong = predictions != labels
    np.add.at(counts, (np.broadcast_to(labels, predictions.shape)[wrong], predictions[wrong].clip(0, 9)), 1)
    means = counts / len(predictions)
    axis.imshow(means, cmap="Blues")
    for row, column in np.argwhere(means >= 0.05):
        colour = "white" if means[row, column] > 0.6 * means.max() else "black"
        axis.text(column, row, f"{means[row, column]:.1f}", ha="center", va="center", fontsize=8, color=colour)
    axis.set(xticks=range(10), yticks=range(10), xlabel="predicted digit", ylabel="label (the correct digit)")
    axis.set_title(f"Mean number of mistakes per network,\nof {len(labels):,} test images")


def _plot_hardest(figure: Any, predictions: np.ndarray, dataset: data.Dataset) -> None:
    wrong = (predictions != dataset.test_labels).sum(0)
    hardest = np.argsort(-wrong, kind="stable")[:NUM_HARDEST]
    title = "The test images that most networks get wrong, with the label, the most frequent wrong prediction,"
    figure.suptitle(f"{title}\nand the number of networks, of {len(predictions)}, that are wrong")
    for axis, index in zip(figure.subplots(4, NUM_HARDEST // 4).flat, hardest, strict=True):
        label, found = dataset.test_labels[index], predictions[:, index]
        mistaken = np.bincount(found[found != label], minlength=16).argmax()
        axis.imshow(dataset.test_images[index, ..., 0], cmap="gray_r")
        axis.set_title(f"label {label}, predicted {mistaken}\n{wrong[index]} of {len(found)} wrong", fontsize=8)
        axis.set_axis_off()


if __name__ == "__main__":
    main()
