"""Arms for the tests of the benchmarks' processes: a millisecond of sleep, or something that goes wrong."""

import os
import time

from benchmarks.process import Worker, ask_all
from benchmarks.worker import Task

ENTRY = "tests.benchmarks.fake_arm:prepare"


def prepare(*, batch: int, trouble: str = "") -> Task:
    if trouble == "raises":
        raise ValueError("no such thing")
    if trouble == "dies":
        os._exit(3)
    num_params = 7 if trouble == "small" else 11_952
    info = {"environment": dict(os.environ), "pid": os.getpid()}
    return Task(lambda n: time.sleep(n * 1e-3), batch, num_params, [1.0, 0.5], info=info)


def with_helpers(*, batch: int) -> Task:
    """An arm whose work is done by two processes of its own."""
    helpers = [Worker(ENTRY, {}, own_group=False) for _ in range(2)]
    ready = ask_all(helpers, "prepare", arguments={"batch": batch}, seconds=0.0)
    info = {"pids": [reply["info"]["pid"] for reply in ready]}

    def run(n: int) -> dict[str, float]:
        return {"work": sum(reply["work"] for reply in ask_all(helpers, "sample", repeats=n))}

    return Task(run, sum(reply["work"] for reply in ready), 11_952, [1.0, 0.5], info=info)
