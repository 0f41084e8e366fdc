"""jax_s6's sweep on a number of devices, or in several processes."""

import socket

from benchmarks.process import Worker, ask_all
from benchmarks.worker import Task

BATCH = 64


def lanes_on(*, lanes: int, devices: int | None = None) -> Task:
    """Train lanes as the benchmark ``sweep`` does. The results include the size of a lane's state in bytes."""
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
    """Train the lanes in several processes on this machine, each with one device. This process imports no JAX."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    members = [Worker("benchmarks.arms.scaling:member", {}, own_group=False) for _ in range(count)]
    for number, member in enumerate(members):
        process = {"coordinator": address, "num_processes": count, "process_id": number}
        member.send("prepare", arguments={"lanes": lanes, **process}, seconds=0.0)
    ready = [member.receive() for member in members][0]

    def run(n: int) -> None:
        ask_all(members, "sample", repeats=n)

    return Task(run, ready["work"], ready["num_params"], ready["losses"], ready["compile_seconds"])


def member(*, lanes: int, **process: str | int) -> Task:
    """Be one of the processes: join the others, and train this process's share of the lanes."""
    import jax

    from benchmarks.arms import ours
    from jax_s6.runs.processes import DistributedConfig, initialize

    jax.config.update("jax_num_cpu_devices", 1)
    initialize(DistributedConfig(distributed=True, **process))  # pyright: ignore[reportArgumentType]
    return ours.sweep(lanes=lanes)
