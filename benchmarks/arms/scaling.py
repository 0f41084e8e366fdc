"""Our lanes on so many devices, or in so many processes."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

from benchmarks.worker import Task, end_with_parent

BATCH = 64


def lanes_on(*, lanes: int, devices: int | None = None) -> Task:
    """As ``sweep``'s arm; the bytes a lane's state takes are beside it."""
    import jax

    from benchmarks.arms import ours
    from jax_s6 import backend
    from jax_s6.training import plan as grid
    from jax_s6.training.lanes import state_shapes

    backend.use_cpu_devices()
    devices = min(devices or len(jax.devices()), len(jax.devices()))
    task = ours.sweep(lanes=lanes, devices=devices)
    plan = grid.make_plan(ours.make_config(BATCH, "float32"), {})
    leaves = jax.tree.leaves(state_shapes(plan, plan.groups[0]))
    task.info["state_bytes_a_lane"] = sum(x.size * x.dtype.itemsize for x in leaves)
    return task


def processes(*, lanes: int, count: int) -> Task:
    """The lanes in several processes that meet on loopback, each with one device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"lanes": lanes, "count": count, "address": address}
    members = []
    for number in range(count):
        command = [sys.executable, "-m", "benchmarks.arms.scaling", json.dumps({**settings, "number": number})]
        members.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    ready = [json.loads(_line(member)) for member in members]

    def run(n: int) -> None:
        for member in members:
            assert member.stdin is not None
            member.stdin.write(f"{n}\n")
            member.stdin.flush()
        for member in members:
            _line(member)

    return Task(run, ready[0]["work"], ready[0]["num_params"], ready[0]["losses"], ready[0]["compile_seconds"])


def _line(member: Any) -> str:
    line = member.stdout.readline()
    if not line:
        raise RuntimeError(f"a process ended with status {member.wait()}")
    return line


def _serve(settings: dict[str, Any]) -> None:
    """One of the processes."""
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import jax

    jax.config.update("jax_num_cpu_devices", 1)
    from jax_s6.runs import processes as distributed

    distributed.initialize(
        distributed.DistributedConfig(
            distributed=True,
            coordinator=settings["address"],
            num_processes=settings["count"],
            process_id=settings["number"],
        )
    )
    from benchmarks.arms import ours

    task = ours.sweep(lanes=settings["lanes"])
    ready = {"work": task.work, "num_params": task.num_params, "losses": task.losses}
    print(json.dumps({**ready, "compile_seconds": task.compile_seconds}), file=answers, flush=True)
    for line in sys.stdin:
        task.run(int(line))
        print("{}", file=answers, flush=True)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
