"""How many images per second do many networks train on, each with its own learning rate?"""

from typing import Any

from benchmarks.definitions import Arm, Benchmark, ours, peer
from benchmarks.machine import has_nvidia_gpu
from jax_s6 import backend

CORES = backend.cores()
PYTORCH = (
    ("processes", "eager", None),
    ("sequential", "eager", (1, 2, 6)),
    ("processes", "compiled", (6,)),
    ("sequential", "eager graph", (1, 2, 6, 16, 64)),
    ("sequential", "compiled graph", (6,)),
)


def pytorch(arrangement: str, mode: str, cases: tuple[int, ...] | None, precision: str) -> Arm:
    settings: dict[str, Any] = {"mode": mode, "layout": "channels_last", "precision": precision}
    settings |= {"threads" if arrangement == "sequential" else "processes": CORES}
    how = {"processes": "one process per core", "sequential": f"one by one, {CORES} threads"}[arrangement]
    name = f"PyTorch {mode.replace('graph', 'CUDA graph')} {precision}, {how}"
    quick, cuda = (arrangement, mode) == ("processes", "eager"), mode.endswith("graph")
    return peer(name, f"pytorch.sweep:{arrangement}", "torch", cases=cases, quick=quick, cuda=cuda, **settings)


def vmapped_cases(*on_cpu: int) -> tuple[int, ...] | None:
    """Return the cases of peers that use ``vmap``: all on a GPU. On CPU, a sample of many lanes would take minutes."""
    return None if has_nvidia_gpu() else on_cpu


BENCHMARK = Benchmark(
    name="sweep",
    title="Training speed of many networks at once, batch size 64, without augmentation",
    arms=(
        ours("ours float32", "ours:sweep", quick=True),
        ours("ours bf16", "ours:sweep", quick=True, precision="bf16"),
        ours("ours float32, packed", "ours:sweep", cuda=True, convolution="packed"),
        ours("ours bf16, packed", "ours:sweep", cuda=True, convolution="packed", precision="bf16"),
        ours("ours float32, width 2", "ours:sweep", cases=(6,), width=2),
        ours("ours float32, one by one on all cores", "ours:sweep", cases=(1, 2, 6), sequential=True),
        ours("ours float32, one by one on two devices", "ours:sweep", cases=(6,), sequential=True, devices=2),
        peer("Flax nn.Conv, vmap in a scan", "flax:sweep", cases=vmapped_cases(1, 2, 6)),
        *(pytorch(*arm, precision) for precision in ("float32", "bf16") for arm in PYTORCH),
        peer(
            "PyTorch torch.func ensemble", "pytorch.sweep:ensemble", "torch", cases=vmapped_cases(2, 6), threads=CORES
        ),
    ),
    axis="lanes",
    cases=(1, 2, 6, 16, 64, 256),
    quick_cases=(6,),
    unit="images/s, all networks together",
    rounds=3,
    quick_rounds=2,
    note=(
        "Our arms use the code of python -m jax_s6.sweep, which moves the networks' states from and to the host around"
        " each epoch. An epoch has 64 batches, or fewer from 64 networks on. Every network trains on the same number of"
        " images in every arm, except in those with vmap: their speed does not depend on that number, and their samples"
        " would take minutes."
    ),
)
