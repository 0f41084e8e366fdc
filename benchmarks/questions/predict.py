"""How fast does the trained network classify one image, and how many per second?"""

import itertools
from typing import Any

from benchmarks.definitions import Arm, Benchmark, ours, peer


def pytorch(precision: str, mode: str, part: int | None = None) -> Arm:
    name = f"PyTorch {mode} {precision}" + (f", {part} at once" if part else "")
    quick, cases = (mode, precision) == ("eager", "float32"), (1024,) if part else None
    settings: dict[str, Any] = {"mode": mode, "precision": precision} | ({"part": part} if part else {})
    return peer(name, "pytorch.predict:predict", "torch", quick=quick, cases=cases, **settings)


PRECISIONS = ("float32", "bf16")
ONNX = ("onnx:predict", "onnx", "onnxruntime")
BENCHMARK = Benchmark(
    name="predict",
    title="Prediction speed, from uint8 images to logits",
    arms=(
        ours("ours float32", "predict_ours:ours", quick=True),
        ours("ours bf16", "predict_ours:ours", precision="bf16"),
        ours("ours, xla convolution", "predict_ours:ours", convolution="xla"),
        *itertools.starmap(pytorch, itertools.product(PRECISIONS, ("eager", "compiled"))),
        *itertools.starmap(pytorch, itertools.product(PRECISIONS, ("eager",), (64,))),
        peer("ONNX Runtime, 64 at once", *ONNX, cases=(1024,), quick=True, part=64),
        peer("ONNX Runtime", *ONNX, quick=True),
    ),
    axis="batch",
    cases=(1, 1024),
    quick_cases=(1, 1024),
    quick_rounds=2,
    check="predict",
    note=(
        "At batch size 1, the seconds per image are one over the images per second. Our arms split a batch into parts"
        " of 64 images and share them among the devices."
    ),
)
