"""A run that prints the memory in use after each checkpoint, as JSON: ``python -m tests.faults.memory FLAGS``."""

import ctypes
import gc
import json
import sys

import psutil

from jax_s6.runs.checkpoints import Store
from jax_s6.train.command import main

process, sizes, save = psutil.Process(), [], Store.save
malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda kept: None)


def measured_save(store, *arguments):
    save(store, *arguments)
    store.wait()
    gc.collect()
    malloc_trim(0)  # glibc would keep what was freed
    sizes.append(process.memory_info().rss)


if __name__ == "__main__":
    Store.save = measured_save
    main(sys.argv[1:])
    print(json.dumps({"sizes": sizes, "open_files": len(process.open_files())}))
