"""Measure what checkpoints cost, in seconds per epoch: ``python -m benchmarks.studies.checkpoints``.

One run of the default recipe writes a checkpoint after every other epoch. A checkpoint is written while the next epoch
computes, so the odd epochs share the machine with the writer and the even ones do not. The first two epochs, which
warm up, are not counted.
"""

import json
import statistics
import tempfile
from pathlib import Path

from jax_s6.train.command import main as train

ROUNDS = 12


def main() -> None:
    """Print the two medians and their difference."""
    with tempfile.TemporaryDirectory() as folder:
        train(["--num-epochs", str(2 + 2 * ROUNDS), "--checkpoint-every", "2", "--out", folder])
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows[2:]]
    written, plain = seconds[::2], seconds[1::2]
    for name, values in (("without", plain), ("with", written)):
        print(f"{name}: {statistics.median(values):.3f} s per epoch ({min(values):.3f} to {max(values):.3f})")
    cost = [more / less - 1 for more, less in zip(written, plain, strict=True)]
    print(f"cost: {statistics.median(cost):.1%} of an epoch, median of {ROUNDS} pairs")


if __name__ == "__main__":
    main()
