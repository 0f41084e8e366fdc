"""A run of 200 epochs that prints what is in memory after each, as JSON: ``python -m tests.faults.memory DATA OUT``."""

import ctypes
import dataclasses
import gc
import json
import sys
from pathlib import Path

import psutil

from jax_s6 import data
from jax_s6.config import RECIPES, AugmentConfig, DataConfig, ModelConfig
from jax_s6.runs.checkpoints import Store
from jax_s6.train import command as train
from jax_s6.train.state import Keeper


def main(folder: Path, out: Path) -> None:
    dataset = data.load(DataConfig(data_dir=folder))
    config = dataclasses.replace(
        RECIPES["best"], num_epochs=200, batch_size=50, model=ModelConfig(), augment=AugmentConfig()
    )
    process, store, sizes = psutil.Process(), Store(out, {}), []
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda kept: None)
    store.clear()

    def on_epoch(row, rate):
        store.wait()
        gc.collect()
        malloc_trim(0)  # glibc would keep what was freed
        sizes.append(process.memory_info().rss)

    train.train(config, dataset, on_epoch=on_epoch, keeper=Keeper(store))
    print(json.dumps({"sizes": sizes, "open_files": len(process.open_files())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
