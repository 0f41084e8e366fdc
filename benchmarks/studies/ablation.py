"""Which settings are the most accurate, judged on held-out images: ``python -m benchmarks.studies.ablation``.

Every arm trains the same seeds on 50,000 of the training images for 19 epochs and is judged on the other 10,000, at the
final epoch; the test images are not looked at. One line an arm is added to ``benchmarks/results/arms.csv``: arms that
are there with as many seeds are not trained again.
"""

import argparse
import csv
import dataclasses
import statistics
from pathlib import Path

from jax_s6 import backend, data
from jax_s6.config import RECIPES, DataConfig, ModelConfig
from jax_s6.settings import replace
from jax_s6.sweep.run import sweep

START = {"batch_size": 64, "learning_rate": 0.1}
WIDER = {"batch_size": 128, "learning_rate": 0.15}
ANNEALED = WIDER | {"anneal_fraction": 0.26}
ELASTIC = ANNEALED | {"elastic": 0.8}
DROPOUT = ELASTIC | {"dropout_conv1": 0.02, "dropout_conv2": 0.02}
ARMS = {
    "batch 64, peak 0.1": START,
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
FIELDS: tuple[str, ...] = ("arm", "n", "validation_accuracy", "sd", "validation_loss", "train_loss", "settings")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.ablation", description=__doc__)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="parts of their names")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--holdout", type=int, default=10_000)
    parser.add_argument("--precision", default="bf16", help="bf16 is the quicker one where the processor has the units")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/arms.csv"))
    options = parser.parse_args()
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    plain = dataclasses.replace(RECIPES["best"], data=DataConfig(holdout=options.holdout), model=ModelConfig())
    dataset = data.load(plain.data)
    rows = {row["arm"]: row for row in read(options.out)}
    for arm, settings in ARMS.items():
        done = int(rows[arm]["n"]) >= options.seeds if arm in rows else False
        if done or not any(part in arm for part in options.arms):
            continue
        neutral = {"precision": options.precision, "elastic": 0.0, "anneal_fraction": 0.0}
        config = replace(plain, neutral | settings)
        result = sweep(config, {"seed": range(options.seeds)}, dataset)
        rows[arm] = summarize(arm, settings, result.rows)
        print(rows[arm], flush=True)
        write(options.out, [rows[name] for name in ARMS if name in rows])


def summarize(arm: str, settings: dict[str, float], lanes: list[dict[str, float]]) -> dict[str, str]:
    """Means over seeds; the deviation is that of single seeds."""
    accuracies = [lane["validation_accuracy"] for lane in lanes]
    return {
        "arm": arm,
        "n": str(len(lanes)),
        "validation_accuracy": f"{statistics.mean(accuracies):.5f}",
        "sd": f"{statistics.stdev(accuracies):.5f}",
        "validation_loss": f"{statistics.mean(lane['validation_loss'] for lane in lanes):.5f}",
        "train_loss": f"{statistics.mean(lane['train_loss'] for lane in lanes):.5f}",
        "settings": " ".join(f"{name}={value:g}" for name, value in settings.items()),
    }


def read(path: Path) -> list[dict[str, str]]:
    """The lines of an earlier run, if there is one."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
