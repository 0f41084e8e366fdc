"""How much of what the machine can do does a training step use, and where does the rest go?"""

from benchmarks.harness import Arm, Question

PRECISIONS = ("float32", "bf16")
TORCH = {"torch": "torch"}

QUESTION = Question(
    name="roofline",
    title="Matrix products and copies at their best, and the training step beside them",
    arms=(
        *(
            Arm(
                f"peak: {p} products, JAX",
                "benchmarks.arms.roofline:products",
                {"precision": p},
                {},
                True,
                p,
            )
            for p in PRECISIONS
        ),
        *(
            Arm(f"peak: {p} products, PyTorch", "benchmarks.arms.torch_peak:products", {"precision": p}, TORCH, True, p)
            for p in PRECISIONS
        ),
        *(
            Arm(
                f"training step {p}",
                "benchmarks.arms.roofline:step",
                {"precision": p},
                precision=p,
            )
            for p in PRECISIONS
        ),
        Arm(
            "training step float32, two devices",
            "benchmarks.arms.roofline:step",
            {"devices": 2},
        ),
        Arm("peak: copy, threads of NumPy", "benchmarks.arms.roofline:copy", {}, {}, True, "bytes"),
        Arm("reading what another core wrote, NumPy", "benchmarks.arms.roofline:exchange", {}, {}, True, "exchange"),
        Arm(
            "training step float32, least bytes", "benchmarks.arms.roofline:step", {"count": "bytes"}, precision="bytes"
        ),
    ),
    axis="batch",
    cases=(64,),
    unit="G(FLOP or B)/s",
    rounds=3,
    check=None,
    note=(
        "FLOPs are counted from the layers' shapes: two for each multiplication and addition of the convolutions and"
        " of their two gradients (none for the images'), nothing else. Bytes are the least that a step moves if nothing"
        " stays in the cache between layers: each layer's input and output once forward, and both and their gradients"
        " once backward, in float32. A copy's bytes are those read and written. How fast cores read what others wrote"
        " tells whether they share a cache, which a hypervisor may change while this runs. The ratio is the share that"
        " is reached; time per operation is the sum over the devices' threads in one traced epoch."
    ),
)
