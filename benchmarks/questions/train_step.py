"""How many images per second does one network train on?"""

import itertools

from benchmarks.definitions import Arm, Benchmark, ours, peer
from benchmarks.machine import has_nvidia_gpu
from jax_s6 import backend

CORES = backend.cores()
EVERY_CASE_ON_GPU = None if has_nvidia_gpu() else (64,)


def pytorch(mode: str, layout: str, threads: int, precision: str) -> Arm:
    """Describe an arm in PyTorch. Only the fastest ones run in all cases, as each compilation takes half a minute."""
    name = f"PyTorch {mode.replace('graph', 'CUDA graph')} {layout} {threads} thread{'s' * (threads > 1)} {precision}"
    settings = {"mode": mode, "layout": layout, "threads": threads, "precision": precision}
    graph, fastest = mode.endswith("graph"), (layout, threads) == ("channels_last", CORES)
    cases = None if graph or (fastest and mode == "eager") else (64, 128, 512) if fastest else (64,)
    quick = fastest and mode == "eager"
    return peer(name, "pytorch.step:train_step", "torch", cuda=graph, cases=cases, quick=quick, **settings)


def keras(framework: str) -> Arm:
    environment = {"KERAS_BACKEND": framework}
    name, entry = f"Keras 3 on {framework}", "keras3:train_step"
    return peer(name, entry, "keras", framework, environment=environment, cases=(64,))


PRECISIONS = ("float32", "bf16")
EAGER = itertools.product(("eager",), ("contiguous", "channels_last"), sorted({1, CORES}), PRECISIONS)
COMPILED = itertools.product(("compiled",), ("contiguous", "channels_last"), (CORES,), PRECISIONS)
GRAPHS = itertools.product(("eager graph", "compiled graph"), ("channels_last",), (1,), PRECISIONS)
BENCHMARK = Benchmark(
    name="train_step",
    title="Training speed of one network, without augmentation and dropout",
    arms=(
        ours("ours float32", "ours:train_step", quick=True),
        ours("ours bf16", "ours:train_step", quick=True, precision="bf16"),
        ours("ours float32, one device", "ours:train_step", cases=(128,), devices=1),
        ours("ours float32, two devices", "ours:train_step", cases=(32, 64), devices=2),
        ours("ours float32 with augmentation", "ours:train_step", cases=(64, 128), augmented=True),
        ours("ours, xla convolution", "ours:train_step", cases=(64,), convolution="xla"),
        ours("ours, packed", "ours:train_step", cuda=True, convolution="packed"),
        peer("Flax nn.Conv, jit per step", "flax:train_step", cases=(64,)),
        peer("Flax nn.Conv in a scan", "flax:train_scan", cases=EVERY_CASE_ON_GPU),
        peer("lax.conv NCHW, jit per step", "lax:train_step", cases=(64,)),
        *(pytorch(*arm) for arm in (*EAGER, *COMPILED, *GRAPHS)),
        *map(keras, ("jax", "torch", "tensorflow")),
    ),
    axis="batch",
    cases=(32, 64, 128, 256, 512, 1024),
    quick_cases=(64,),
    rounds=5,
    note=(
        "Our step starts from uint8 images in the device's memory; it picks them by a permutation and normalises them."
        " The peers are given normalised float32 batches, and an allocator that keeps freed memory"
        " (harness.PEERS_ENVIRONMENT). On CPU, our batches of 128 and more are split over several devices. Smaller ones"
        " run on one device, whose operations use all cores; this is slow if the cores share no cache (see roofline)."
    ),
)
