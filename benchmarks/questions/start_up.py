"""How long from the command to the first training step?"""

from benchmarks.harness import Arm, Question

QUESTION = Question(
    name="start_up",
    title="From starting Python to the first training step, decoded data in the cache",
    arms=(
        Arm("ours, programs compiled", "benchmarks.arms.start_up:ours", {"cold": True}),
        Arm("ours, programs in the cache", "benchmarks.arms.start_up:ours", {"cold": False}),
        Arm("PyTorch eager", "benchmarks.arms.start_up:torch", {"mode": "eager"}, {"torch": "torch"}, True),
        Arm(
            "PyTorch compiled, empty cache",
            "benchmarks.arms.start_up:torch",
            {"mode": "compiled"},
            {"torch": "torch"},
            True,
        ),
    ),
    axis="recipe",
    cases=("best",),
    unit="s",
    value="seconds",
    higher_is_better=False,
    rounds=3,
    check=None,
    note="Each start is a new process; the parts, in seconds, are those of the last one.",
)
