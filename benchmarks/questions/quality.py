"""Is the result the same? Six learning rates, ours against PyTorch's: speed that changes results is no speed."""

from benchmarks.harness import Arm, Question

QUESTION = Question(
    name="quality",
    title="Test accuracy after one epoch of SGD with momentum, batch 64, means over seeds 0 to 2",
    arms=(
        Arm("ours float32", "benchmarks.arms.recipe_ours:quality"),
        Arm("ours bf16", "benchmarks.arms.recipe_ours:quality", {"precision": "bf16"}, precision="bf16"),
        Arm("PyTorch eager", "benchmarks.arms.recipe_torch:quality", {}, {"torch": "torch"}, peer=True),
    ),
    axis="learning_rate",
    cases=(0.1, 0.2, 0.5, 0.8, 1.0, 2.0),
    unit="%",
    value="percent",
    rounds=3,
    check=None,
    note="A round is a seed. Initial weights and order are each framework's own, drawn from the same distributions.",
)
