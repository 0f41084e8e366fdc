"""Images per second of one network's training step, ours against PyTorch's: ``python -m benchmarks.train_step``.

Every arm trains the same network (11,952 parameters) on random images with SGD and momentum, without augmentation or
dropout, and gets its best arrangement on all cores. Each arm runs in a process of its own, since threads, devices and
precision are settings of a process; the processes take turns (A B C A B C ...), so that a machine whose speed drifts
treats them alike. A process warms up first, so compilation is not counted, and reports its median over several
repeats. An arm is checked before it is timed: it must have 11,952 parameters.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

OURS = ("ours float32", "ours bf16", "ours float32 augmented")
LINEN = "nn.Conv in the same scan"
TORCH = tuple(
    f"torch {mode} {layout} {threads} {precision}"
    for mode in ("eager", "compiled")
    for layout in ("contiguous", "channels_last")
    for threads in ("1-thread", "2-threads")
    for precision in ("float32", "bf16")
)
REPEATS = 7


def time_calls(call: Callable[[], None], images: int) -> float:
    """Returns the median images per second of ``call`` after a warm-up."""
    call()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return images / statistics.median(seconds)


def run_ours(arm: str, batch: int) -> float:
    """Times one epoch's scan, of as many steps as take about half a second."""
    import dataclasses

    import jax
    import jax.numpy as jnp
    import numpy as np

    from jax_s6 import backend, loop, model
    from jax_s6.config import RECIPES, Hyperparameters, ModelConfig

    backend.use_cpu_devices()
    steps = 3 if arm == LINEN else max(8, 4096 // batch)
    precision = "bf16" if "bf16" in arm else "float32"
    config = dataclasses.replace(
        RECIPES["s6"],
        batch_size=batch,
        model=ModelConfig(convolution="matmul", precision=precision),
        augment=RECIPES["best" if "augmented" in arm else "s6"].augment,
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (steps * batch, 28, 28, 1), dtype=np.uint8)
    labels = rng.integers(0, 10, steps * batch, dtype=np.int32)
    devices = backend.batch_devices(batch, None)
    trainer = loop.Trainer(loop.Program(config, len(labels)), loop.make_mesh(devices))
    hyper = trainer.put_lanes(Hyperparameters(*([value] for value in Hyperparameters.of(config))))
    train = trainer.put_shared(loop.Split(images, labels))
    state = trainer.create(hyper)
    assert sum(x.size for x in jax.tree.leaves(state.params)) == model.NUM_PARAMS
    with linen_network() if arm == LINEN else contextlib.nullcontext():
        epoch = trainer.train.lower(hyper, state, jnp.int32(0), train).compile()
    holder = [state]

    def call() -> None:
        holder[0], _ = epoch(hyper, holder[0], jnp.int32(0), train)
        jax.block_until_ready(holder[0])

    return time_calls(call, steps * batch)


@contextlib.contextmanager
def linen_network() -> Iterator[None]:
    """Replaces the network by the same one as Flax's examples write it: nn.Conv on NHWC, with the same parameters."""
    import flax.linen as nn

    from jax_s6 import model

    class Block(nn.Module):
        pool: bool

        @nn.compact
        def __call__(self, x, train):
            for index, stride in enumerate((1, 2)):
                x = nn.relu(nn.Conv(16, (3, 3), stride, padding=1, name=f"conv_{index}")(x))
                norm = nn.BatchNorm(not train, momentum=0.9, axis_name=model.BATCH_AXIS, name=f"norm_{index}")
                x = norm(x)
            return nn.max_pool(x, (2, 2), (2, 2)) if self.pool else x

    class Net(nn.Module):
        @nn.compact
        def __call__(self, images, train=False, dropout_rates=(), dropout_keys=None):
            x = (images.astype("float32") / 255 - model.MEAN) / model.STD
            for number in (1, 2, 3):
                x = Block(number < 3, name=f"conv{number}")(x, train)
            return x.mean((1, 2))

    ours, model.create = model.create, lambda *_, **__: Net()
    try:
        yield
    finally:
        model.create = ours


def run_torch(arm: str, batch: int) -> float:
    """Times as many eager or compiled steps as take about half a second."""
    import torch

    from jax_s6.model import NUM_PARAMS
    from tests.parity.reference import Net

    _, mode, layout, threads, precision = arm.split()
    torch.set_num_threads(int(threads[0]))
    torch.manual_seed(0)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    net = Net().to(memory_format=memory_format).train()  # pyright: ignore[reportCallIssue]
    assert sum(p.numel() for p in net.parameters()) == NUM_PARAMS
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    forward = torch.compile(net) if mode == "compiled" else net
    steps = max(8, 4096 // batch)
    images = torch.rand(steps, batch, 1, 28, 28)
    labels = torch.randint(0, 10, (steps, batch))

    def call() -> None:
        for x, y in zip(images, labels, strict=True):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = torch.nn.functional.cross_entropy(forward(x.contiguous(memory_format=memory_format)), y)
            loss.backward()
            optimizer.step()

    return time_calls(call, steps * batch)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", default=[*OURS, LINEN, *TORCH], help="names, or parts of names")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run = run_torch if options.run.startswith("torch") else run_ours
        print(json.dumps(run(options.run, options.batch_sizes[0])))
        return
    arms = [arm for arm in (*OURS, LINEN, *TORCH) if any(part in arm for part in options.arms)]
    for batch in options.batch_sizes:
        rates = measure(arms, batch, options.rounds)
        print(f"\nbatch {batch}: images/s, median (min to max) of {options.rounds} processes")
        for arm, samples in sorted(rates.items(), key=lambda item: -statistics.median(item[1])):
            print(f"{statistics.median(samples):9,.0f} ({min(samples):,.0f} to {max(samples):,.0f})  {arm}")


def measure(arms: list[str], batch: int, rounds: int) -> dict[str, list[float]]:
    """Runs the arms in turn, each in a process of its own."""
    rates: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(rounds):
        for arm in arms:
            command = [sys.executable, "-m", "benchmarks.train_step", "--run", arm, "--batch-sizes", str(batch)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{arm}: not run: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            rates[arm].append(json.loads(done.stdout.splitlines()[-1]))
    return {arm: samples for arm, samples in rates.items() if samples}


if __name__ == "__main__":
    main()
