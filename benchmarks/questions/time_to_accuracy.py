"""How many seconds of training until the test images are judged 99.0 % and 99.4 % right?"""

from benchmarks.harness import Arm, Question

QUESTION = Question(
    name="time_to_accuracy",
    title="Seconds to 99.0 and 99.4 % test accuracy, seed 0",
    arms=(
        Arm("ours, recipe best", "benchmarks.arms.recipe_ours:run", {"recipe": "best"}),
        Arm(
            "PyTorch, recipe best",
            "benchmarks.arms.recipe_torch:run",
            {"recipe": "best"},
            {"torch": "torch"},
            peer=True,
        ),
    ),
    axis="percent",
    cases=(99.0, 99.4),
    unit="s",
    value="seconds",
    higher_is_better=False,
    rounds=1,
    check=None,
    note=(
        "The first epoch whose accuracy reaches the target, training and judging counted, compilation not. An arm whose"
        " run ends below the target is listed as not run, with the accuracy that it reached. Both targets are read from"
        " one run. PyTorch trains eager and channels_last, its images in memory and warped a batch at once."
    ),
)
