"""How many images a second does one network train on?"""

from benchmarks.harness import Arm, Question, has_nvidia_gpu
from jax_s6 import backend

CORES, GPU = backend.cores(), has_nvidia_gpu()
TORCH = {"torch": "torch"}


def ours(name: str, quick: bool = False, cases: tuple[int, ...] | None = None, **settings) -> Arm:
    precision = settings.get("precision", "float32")
    return Arm(name, "benchmarks.arms.ours:train_step", settings, precision=precision, cases=cases, quick=quick)


def torch(mode: str, layout: str, threads: int, precision: str, cases: tuple[int, ...] | None = (64, 128)) -> Arm:
    name = f"PyTorch {mode.replace('graph', 'CUDA graph')} {layout} {threads} thread{'s' * (threads > 1)} {precision}"
    settings = {"mode": mode, "layout": layout, "threads": threads, "precision": precision}
    quick = (mode, layout, threads) == ("eager", "channels_last", CORES)
    entry = "benchmarks.arms.torch_step:train_step"
    cuda = mode.endswith("graph")
    return Arm(name, entry, settings, TORCH, peer=True, precision=precision, cases=cases, quick=quick, cuda=cuda)


def torch_cases(mode: str, layout: str, threads: int) -> tuple[int, ...] | None:
    """The arrangements that are PyTorch's best run with more batches; each compilation takes half a minute."""
    if (layout, threads) != ("channels_last", CORES):
        return (64,)
    return None if mode == "eager" else (64, 128, 512)


def keras(backend: str, package: str) -> Arm:
    name, environment = f"Keras 3 on {backend}", {"KERAS_BACKEND": backend}
    requires = {"keras": "keras", package: package}
    entry = "benchmarks.arms.keras:train_step"
    return Arm(name, entry, requires=requires, peer=True, environment=environment, cases=(64,))


QUESTION = Question(
    name="train_step",
    title="Training step of one network, no augmentation, no dropout",
    arms=(
        ours("ours float32", quick=True),
        ours("ours bf16", quick=True, precision="bf16"),
        ours("ours float32, one device", cases=(128,), devices=1),
        ours("ours float32, two devices", cases=(32, 64), devices=2),
        ours("ours float32 with augmentation", cases=(64, 128), augmented=True),
        ours("ours, xla convolution", cases=(64,), convolution="xla"),
        Arm("Flax nn.Conv, jit a step", "benchmarks.arms.flax:train_step", peer=True, cases=(64,)),
        Arm("Flax nn.Conv in a scan", "benchmarks.arms.flax:train_scan", peer=True, cases=None if GPU else (64,)),
        Arm("lax.conv NCHW, jit a step", "benchmarks.arms.lax:train_step", peer=True, cases=(64,)),
        *(
            torch(mode, layout, threads, precision, cases)
            for mode in ("eager", "compiled")
            for layout in ("contiguous", "channels_last")
            for threads in sorted({1, CORES})
            for precision in ("float32", "bf16")
            for cases in [torch_cases(mode, layout, threads)]
            if mode == "eager" or threads == CORES
        ),
        *(
            torch(f"{mode} graph", "channels_last", 1, precision, None)
            for mode in ("eager", "compiled")
            for precision in ("float32", "bf16")
        ),
        keras("jax", "jax"),
        keras("torch", "torch"),
        keras("tensorflow", "tensorflow"),
    ),
    axis="batch",
    cases=(32, 64, 128, 256, 512, 1024),
    quick_cases=(64,),
    rounds=5,
    note=(
        "Ours begin with uint8 images in the device's memory, gathered by a permutation and normalised within the step;"
        " peers are given normalised float32 batches, and keep freed memory (harness.PEERS_ENVIRONMENT). On CPU, ours"
        " split batches of 128 and more over several devices, and the operations of smaller ones over the cores, slow"
        " while those share no cache (roofline)."
    ),
)
