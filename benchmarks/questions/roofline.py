"""How much of the machine's peak does a training step reach, and where does the rest of the time go?"""

from benchmarks.definitions import Benchmark, ours, peer

PRECISIONS = ("float32", "bf16")
BENCHMARK = Benchmark(
    name="roofline",
    title="The machine's fastest matrix products and copies, and the training step beside them",
    arms=(
        *(peer(f"peak: {p} products, JAX", "roofline:products", precision=p) for p in PRECISIONS),
        *(peer(f"peak: {p} products, PyTorch", "pytorch.step:products", "torch", precision=p) for p in PRECISIONS),
        *(ours(f"training step {p}", "roofline:step", precision=p) for p in PRECISIONS),
        ours("training step float32, two devices", "roofline:step", devices=2),
        peer("peak: copy, threads of NumPy", "roofline:copy", compared_by="bytes"),
        peer("reading what another core wrote, NumPy", "roofline:exchange", compared_by="exchange"),
        ours("training step float32, least bytes", "roofline:step", count="bytes", compared_by="bytes"),
    ),
    axis="batch",
    cases=(64,),
    unit="GFLOP/s, or GB/s for copies, reads and least bytes",
    rounds=3,
    check=None,
    note=(
        "FLOPs are counted from the shapes of the layers: two for each multiplication and addition of the convolutions"
        " and of their two gradients (except for the gradient with respect to the images), and nothing else. Bytes are"
        " the least that a step moves if nothing stays in the cache between layers: each layer's input and output once"
        " forward, and both and their gradients once backward, in float32. The bytes of a copy are those read and those"
        " written. How fast a core reads what another one wrote shows whether they share a cache, which may change on a"
        " virtual machine. Here the ratio is the fraction of the peak that the step reaches. The time by operation is"
        " the sum over all threads of the devices in one traced epoch."
    ),
)
