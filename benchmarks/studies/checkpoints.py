"""What checkpoints cost, in seconds per epoch: ``python -m benchmarks.studies.checkpoints``.

Epochs with and without take turns in one run of the default recipe, whose state goes on; the first two, which import
Orbax and warm up, are not counted. A checkpoint is written while the next epoch computes, so an epoch "with" is one
that shares the machine with the writer.
"""

import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

from jax_s6 import backend
from jax_s6.config import RECIPES
from jax_s6.data import cache as data_cache
from jax_s6.data import dataset as data
from jax_s6.runs import checkpoints as checkpoint
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.runs.identity import identity
from jax_s6.train import command as train
from jax_s6.train.state import Keeper

ROUNDS = 12


class TakingTurns(Keeper):
    """Keeps a checkpoint after every other epoch, which the next epoch pays for."""

    def epoch_done(self, state: Any, history: Any, num_epochs: int) -> None:
        """Writes after epochs 1, 3, 5, ..."""
        if history[-1]["epoch"] % 2:
            super().epoch_done(state, history, num_epochs)


def main() -> None:
    """Prints the two medians and their difference."""
    backend.use_cpu_devices()
    backend.use_compilation_cache(data_cache.cache_folder())
    config = dataclasses.replace(RECIPES["best"], num_epochs=2 + 2 * ROUNDS)
    dataset = data.load(config.data)
    with tempfile.TemporaryDirectory() as folder:
        store = checkpoint.Store(Path(folder) / "checkpoints", identity({}, dataset.checksum))
        store.clear()
        keeper = TakingTurns(store, CheckpointConfig())
        rows = train.train(config, dataset, keeper=keeper).history[2:]
    plain = [row["seconds"] for row in rows if row["epoch"] % 2]
    written = [row["seconds"] for row in rows if not row["epoch"] % 2]
    for name, seconds in (("without", plain), ("with", written)):
        print(f"{name}: {statistics.median(seconds):.3f} s an epoch ({min(seconds):.3f} to {max(seconds):.3f})")
    pairs = [after / before - 1 for before, after in zip(plain, written, strict=True)]
    print(f"cost: {statistics.median(pairs):.1%} of an epoch, median of {ROUNDS} pairs")


if __name__ == "__main__":
    main()
