"""The accuracy of recipe ``best`` over seeds, on the test images: ``python -m benchmarks.studies.accuracy``.

Trains seeds 0 to 9 as ``python -m jax_s6.train --seed SEED`` does, reads the test images once, at the final epoch, and
writes ``accuracy.json`` and ``accuracy.png``: accuracy by epoch, the confusion matrix, and what most seeds get wrong.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_s6 import backend
from jax_s6.config import RECIPES, TrainConfig
from jax_s6.data import cache as data_cache
from jax_s6.data import dataset as data
from jax_s6.network import net as model
from jax_s6.runs.files import replacing, write_json
from jax_s6.runs.score_card import GOAL
from jax_s6.sweep.result import SweepResult
from jax_s6.sweep.run import Listener, sweep

NUM_HARDEST = 32


class Lines(Listener):
    """Prints a line an epoch."""

    def epoch_done(self, text: str) -> None:
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.accuracy", description=__doc__)
    parser.add_argument("--recipe", default="best", choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)  # before the training, which takes minutes
    backend.use_cpu_devices()
    backend.use_compilation_cache(data_cache.cache_folder())
    config = RECIPES[options.recipe]
    dataset = data.load(config.data)
    result = sweep(config, {"seed": range(options.seeds)}, dataset, listener=Lines())
    logits = predict(config, result, dataset.test_images)
    found = summarize(result)
    stem = "accuracy" if options.recipe == "best" else f"accuracy-{options.recipe}"
    write_json(options.out / f"{stem}.json", found)
    plot(options.out / f"{stem}.png", result, logits.argmax(-1), dataset)
    print(json.dumps({name: found[name] for name in ("n", "mean", "sd", "seeds_at_goal", "test_accuracy")}))


def summarize(result: SweepResult) -> dict[str, Any]:
    """Final-epoch accuracies over seeds, and every epoch's."""
    accuracies = [row["test_accuracy"] for row in result.rows]
    return {
        "n": len(accuracies),
        "mean": statistics.mean(accuracies),
        "sd": statistics.stdev(accuracies),
        "seeds_at_goal": sum(accuracy >= GOAL for accuracy in accuracies),
        "test_accuracy": accuracies,
        "test_accuracy_by_epoch": by_epoch(result).tolist(),
        "summary": result.summary,
    }


def by_epoch(result: SweepResult) -> np.ndarray:
    """Test accuracies ``[seeds, epochs]``."""
    return np.array([row["test_accuracy"] for row in result.history]).reshape(len(result.rows), -1)


def predict(config: TrainConfig, result: SweepResult, images: np.ndarray) -> np.ndarray:
    """Logits of every seed's network, float32 ``[seeds, images, 16]``."""
    net = model.create(config.model)
    apply = jax.jit(lambda variables, batch: net.apply(variables, batch))
    parts = np.split(images, len(images) // 500)
    lanes = [jax.tree.map(lambda x, lane=lane: x[lane], result.variables) for lane in range(len(result.rows))]
    return np.stack([np.concatenate([np.asarray(apply(lane, part)) for part in parts]) for lane in lanes])


def plot(path: Path, result: SweepResult, answers: np.ndarray, dataset: data.Dataset) -> None:
    """Draws accuracy by epoch, the confusion matrix, and the images that most seeds get wrong."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained", dpi=130)
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    top, bottom = halves
    left, right = top.subplots(1, 2, width_ratios=(1.5, 1))
    _plot_band(left, 100 * by_epoch(result))
    _plot_confusion(right, answers, dataset.test_labels)
    _plot_hardest(bottom, answers, dataset)
    with replacing(path) as part:
        figure.savefig(part)


def _plot_band(axis: Any, accuracies: np.ndarray) -> None:
    epochs = np.arange(1, accuracies.shape[1] + 1)
    axis.fill_between(epochs, accuracies.min(0), accuracies.max(0), alpha=0.25, label="range of the seeds")
    axis.plot(epochs, accuracies.mean(0), marker=".", label="mean")
    axis.axhline(100 * GOAL, color="grey", linestyle="--", linewidth=1, label="asked: 99.4 %")
    final = accuracies[:, -1]
    title = f"{len(final)} seeds, final epoch: mean {final.mean():.2f} %, deviation {final.std(ddof=1):.2f} %"
    axis.set(
        xlabel="epoch", ylabel="test accuracy, %", title=title, ylim=(max(97.0, accuracies[:, 1:].min() - 0.1), 99.7)
    )
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")


def _plot_confusion(axis: Any, answers: np.ndarray, labels: np.ndarray) -> None:
    counts = np.zeros((10, 10))
    wrong = answers != labels
    np.add.at(counts, (np.broadcast_to(labels, answers.shape)[wrong], answers[wrong].clip(0, 9)), 1)
    means = counts / len(answers)
    axis.imshow(means, cmap="Blues")
    for row, column in np.argwhere(means >= 0.05):
        colour = "white" if means[row, column] > 0.6 * means.max() else "black"
        axis.text(column, row, f"{means[row, column]:.1f}", ha="center", va="center", fontsize=8, color=colour)
    axis.set(xticks=range(10), yticks=range(10), xlabel="answer", ylabel="label", title="Mistakes a network, of 10,000")


def _plot_hardest(figure: Any, answers: np.ndarray, dataset: data.Dataset) -> None:
    wrong = (answers != dataset.test_labels).sum(0)
    hardest = np.argsort(-wrong, kind="stable")[:NUM_HARDEST]
    figure.suptitle(f"The images that most of {len(answers)} seeds get wrong: label, most frequent answer, how many")
    for axis, index in zip(figure.subplots(4, NUM_HARDEST // 4).flat, hardest, strict=True):
        label = dataset.test_labels[index]
        mistaken = np.bincount(answers[:, index][answers[:, index] != label], minlength=16).argmax()
        axis.imshow(dataset.test_images[index, ..., 0], cmap="gray_r")
        axis.set_title(f"{label}, not {mistaken}: {wrong[index]}", fontsize=9)
        axis.set_axis_off()


if __name__ == "__main__":
    main()
