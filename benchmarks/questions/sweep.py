"""How many images a second do many networks train on, each with a learning rate of its own?"""

from typing import Any

from benchmarks.harness import Arm, Question, has_nvidia_gpu
from jax_s6 import backend

CORES = backend.cores()
TORCH = {"torch": "torch"}


def ours(name: str, quick: bool = False, cases: tuple[int, ...] | None = None, **settings) -> Arm:
    precision = settings.get("precision", "float32")
    return Arm(name, "benchmarks.arms.ours:sweep", settings, precision=precision, cases=cases, quick=quick)


def torch(
    arrangement: str, mode: str, precision: str, quick: bool = False, cases: tuple[int, ...] | None = None
) -> Arm:
    settings: dict[str, Any] = {"mode": mode, "layout": "channels_last", "precision": precision}
    settings |= {"threads" if arrangement == "sequential" else "processes": CORES}
    how = {"processes": "a process a core", "sequential": f"one by one, {CORES} threads"}[arrangement]
    cuda = mode.endswith("graph")
    entry = f"benchmarks.arms.torch_sweep:{arrangement}"
    name = f"PyTorch {mode.replace('graph', 'CUDA graph')} {precision}, {how}"
    return Arm(name, entry, settings, TORCH, peer=True, precision=precision, cases=cases, quick=quick, cuda=cuda)


def vmapped_cases(*on_cpu: int) -> tuple[int, ...] | None:
    """The peers that vmap run with as many lanes as ours on a GPU; on CPU, a sample of many would take minutes."""
    return None if has_nvidia_gpu() else on_cpu


QUESTION = Question(
    name="sweep",
    title="Training many networks of batch 64, no augmentation",
    arms=(
        ours("ours float32", quick=True),
        ours("ours bf16", quick=True, precision="bf16"),
        ours("ours float32, width 2", cases=(6,), width=2),
        ours("ours float32, one by one on all cores", cases=(1, 2, 6), sequential=True),
        ours("ours float32, one by one on two devices", cases=(6,), sequential=True, devices=2),
        Arm("Flax nn.Conv, vmap in a scan", "benchmarks.arms.flax:sweep", peer=True, cases=vmapped_cases(1, 2, 6)),
        *(
            torch(arrangement, mode, precision, quick=(arrangement, mode) == ("processes", "eager"), cases=cases)
            for precision in ("float32", "bf16")
            for arrangement, mode, cases in (
                ("processes", "eager", None),
                ("sequential", "eager", (1, 2, 6)),
                ("processes", "compiled", (6,)),
                ("sequential", "eager graph", (1, 2, 6, 16, 64)),
                ("sequential", "compiled graph", (6,)),
            )
        ),
        Arm(
            "PyTorch torch.func ensemble",
            "benchmarks.arms.torch_sweep:ensemble",
            {"threads": CORES},
            TORCH,
            peer=True,
            cases=vmapped_cases(2, 6),
        ),
    ),
    axis="lanes",
    cases=(1, 2, 6, 16, 64, 256),
    quick_cases=(6,),
    unit="model-images/s",
    rounds=3,
    quick_rounds=2,
    note=(
        "Ours train by the sweep's own code (jax_s6.lanes), the lanes' states moved from and to the host around each"
        " epoch of 64 batches, fewer from 64 lanes on. Every network trains on as many images in every arm but the"
        " vmapped ones, whose rate does not depend on it and whose samples would take minutes."
    ),
)
