"""How many seconds of training does it take to reach 99.0 % and 99.4 % test accuracy?"""

from benchmarks.definitions import Benchmark, ours, peer

BENCHMARK = Benchmark(
    name="time_to_accuracy",
    title="Training time until 99.0 % and 99.4 % test accuracy, seed 0",
    arms=(
        ours("ours, recipe best", "recipe_ours:run", recipe="best"),
        peer("PyTorch, recipe best", "pytorch.recipe:run", "torch", recipe="best"),
    ),
    axis="percent",
    cases=(99.0, 99.4),
    unit="seconds of training",
    value="seconds",
    higher_is_better=False,
    rounds=1,
    check=None,
    note=(
        "The time until the end of the first epoch whose test accuracy reaches the target. It includes training and"
        " evaluation, and excludes compilation. An implementation whose run ends below the target is listed as not run,"
        " with the accuracy that it reached. Both targets are read from one run. PyTorch trains eager and in"
        " channels_last, with its images in memory and augmented a whole batch at once."
    ),
)
