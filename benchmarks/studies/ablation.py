"""Compare the accuracy of settings on held-out images: ``python -m benchmarks.studies.ablation``.

Each variant trains the same seeds on 50,000 of the training images for 19 epochs, and is evaluated on the other 10,000
after the last epoch. The test images are not used. Each variant becomes a row of ``benchmarks/results/ablation.csv``;
those that are there already, with at least as many seeds, are not trained again.
"""

import argparse
import csv
import dataclasses
import statistics
from pathlib import Path

from jax_s6 import backend, data
from jax_s6.config import RECIPES, DataConfig, ModelConfig
from jax_s6.runs.files import replacing
from jax_s6.settings import replace
from jax_s6.sweep.run import sweep

WIDER = {"batch_size": 128, "learning_rate": 0.15}
ANNEALED = WIDER | {"anneal_fraction": 0.26}
ELASTIC = ANNEALED | {"elastic": 0.8}
DROPOUT = ELASTIC | {"dropout_conv1": 0.02, "dropout_conv2": 0.02}
VARIANTS = {
    "batch 64, peak 0.1": {"batch_size": 64, "learning_rate": 0.1},
    "batch 128, peak 0.15": WIDER,
    "the same, augmentation annealed": ANNEALED,
    "the same, elastic 0.8": ELASTIC,
    "the same, dropout 0.02 after conv1 and conv2": DROPOUT,
    "dropout 0.05": DROPOUT | {"dropout_conv1": 0.05, "dropout_conv2": 0.05},
    "dropout 0.02, batch 256, peak 0.25": DROPOUT | {"batch_size": 256, "learning_rate": 0.25},
    "dropout 0.02, peak 0.3": DROPOUT | {"learning_rate": 0.3},
    "dropout 0.02, label smoothing 0.02": DROPOUT | {"label_smoothing": 0.02},
    "dropout 0.02, elastic 1.2": DROPOUT | {"elastic": 1.2},
    "dropout 0.02, annealed over the last half": DROPOUT | {"anneal_fraction": 0.5},
    "dropout 0.02, weight decay 1e-4": DROPOUT | {"weight_decay": 1e-4},
}


def main() -> None:
    """Train the variants, and write each to the file as soon as it is finished."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.ablation", description=__doc__)
    parser.add_argument("--variants", nargs="+", default=[""], help="train only these: parts of their names")
    parser.add_argument("--seeds", type=int, default=4, help="number of networks per variant, >= 2")
    parser.add_argument("--holdout", type=int, default=10_000, help="number of training images held out for evaluation")
    parser.add_argument("--precision", default="bf16", help="number format; bf16 is faster on processors that have it")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablation.csv"), help="file of the results")
    options = parser.parse_args()
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    plain = dataclasses.replace(RECIPES["best"], data=DataConfig(holdout=options.holdout), model=ModelConfig())
    plain = replace(plain, {"precision": options.precision, "elastic": 0.0, "anneal_fraction": 0.0})
    dataset = data.load(plain.data)
    text = options.out.read_text() if options.out.exists() else ""
    rows = {row["arm"]: row for row in csv.DictReader(text.splitlines())}
    for variant, settings in VARIANTS.items():
        done = variant in rows and int(rows[variant]["n"]) >= options.seeds
        if done or not any(part in variant for part in options.variants):
            continue
        result = sweep(replace(plain, settings), {"seed": range(options.seeds)}, dataset)
        rows[variant] = summarize(variant, settings, result.rows)
        print(rows[variant], flush=True)
        with replacing(options.out) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[variant]))
            writer.writeheader()
            writer.writerows(rows[name] for name in VARIANTS if name in rows)


def summarize(variant: str, settings: dict[str, float], lanes: list[dict[str, float]]) -> dict[str, str]:
    """Return the means over seeds, and the standard deviation of single seeds."""
    accuracies, mean = [lane["validation_accuracy"] for lane in lanes], statistics.mean
    return {
        "arm": variant,
        "n": str(len(lanes)),
        "validation_accuracy": f"{mean(accuracies):.5f}",
        "sd": f"{statistics.stdev(accuracies):.5f}",
        "validation_loss": f"{mean(lane['validation_loss'] for lane in lanes):.5f}",
        "train_loss": f"{mean(lane['train_loss'] for lane in lanes):.5f}",
        "settings": " ".join(f"{name}={value:g}" for name, value in settings.items()),
    }


if __name__ == "__main__":
    main()
