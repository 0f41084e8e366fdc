"""An arm for the tests of the benchmarks' processes: a millisecond of sleep, or what goes wrong. Imports little."""

import os
import time

from benchmarks.worker import Task


def prepare(*, batch: int, trouble: str = "") -> Task:
    if trouble == "raises":
        raise ValueError("no such thing")
    if trouble == "dies":
        os._exit(3)
    num_params = 7 if trouble == "small" else 11_952
    return Task(lambda n: time.sleep(n * 1e-3), batch, num_params, [1.0, 0.5], info={"environment": dict(os.environ)})
