"""Is the result the same? Accuracies of six learning rates, ours and PyTorch's: speed must not change results."""

from benchmarks.definitions import Benchmark, ours, peer

BENCHMARK = Benchmark(
    name="quality",
    title="Test accuracy after one epoch of SGD with momentum, batch size 64, seeds 0 to 2",
    arms=(
        ours("ours float32", "recipe_ours:quality"),
        ours("ours bf16", "recipe_ours:quality", precision="bf16"),
        peer("PyTorch eager", "pytorch.recipe:quality", "torch"),
    ),
    axis="learning_rate",
    cases=(0.1, 0.2, 0.5, 0.8, 1.0, 2.0),
    unit="test accuracy, %",
    value="percent",
    rounds=3,
    check=None,
    note=(
        "Each round is one seed. Each framework draws its own initial weights and order of the images, from the same"
        " distributions."
    ),
)
