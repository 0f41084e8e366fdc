"""How quickly does the trained network judge one image, and how many a second?"""

from benchmarks.harness import Arm, Question

TORCH = {"torch": "torch"}
ONNX = {"onnx": "onnx", "onnxruntime": "onnxruntime"}

QUESTION = Question(
    name="predict",
    title="Logits of uint8 images, running statistics",
    arms=(
        Arm("ours float32", "benchmarks.arms.predict_ours:ours", quick=True),
        Arm("ours bf16", "benchmarks.arms.predict_ours:ours", {"precision": "bf16"}, precision="bf16"),
        Arm("ours, xla convolution", "benchmarks.arms.predict_ours:ours", {"convolution": "xla"}),
        *(
            Arm(
                f"PyTorch {mode} {precision}",
                "benchmarks.arms.predict_torch:predict",
                {"mode": mode, "precision": precision},
                TORCH,
                peer=True,
                precision=precision,
                quick=(mode, precision) == ("eager", "float32"),
            )
            for precision in ("float32", "bf16")
            for mode in ("eager", "compiled")
        ),
        *(
            Arm(
                f"PyTorch eager {precision}, 64 at once",
                "benchmarks.arms.predict_torch:predict",
                {"mode": "eager", "precision": precision, "part": 64},
                TORCH,
                peer=True,
                precision=precision,
                cases=(1024,),
                quick=precision == "float32",
            )
            for precision in ("float32", "bf16")
        ),
        Arm(
            "ONNX Runtime, 64 at once",
            "benchmarks.arms.onnx:predict",
            {"part": 64},
            ONNX,
            peer=True,
            cases=(1024,),
            quick=True,
        ),
        Arm("ONNX Runtime", "benchmarks.arms.onnx:predict", requires=ONNX, peer=True, quick=True),
    ),
    axis="batch",
    cases=(1, 1024),
    quick_cases=(1, 1024),
    quick_rounds=2,
    check="predict",
    note=(
        "The seconds of one image's prediction are one over the images/s at batch 1. Ours cut a batch in parts of 64,"
        " and share them among the devices."
    ),
)
