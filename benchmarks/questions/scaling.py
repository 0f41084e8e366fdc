"""What do more devices, more processes and more lanes bring, and what does a lane cost?"""

from benchmarks.harness import Arm, Question

QUESTION = Question(
    name="scaling",
    title="Lanes over devices and processes, batches over devices, up to a thousand lanes",
    arms=(
        Arm("1 device", "benchmarks.arms.scaling:lanes_on", {"devices": 1}, cases=(1, 2, 8)),
        Arm("all devices, a lane each", "benchmarks.arms.scaling:lanes_on"),
        Arm("2 processes of 1 device", "benchmarks.arms.scaling:processes", {"count": 2}, cases=(2, 8)),
    ),
    axis="lanes",
    cases=(1, 2, 8, 100, 1000),
    unit="model-images/s",
    rounds=2,
    memory=True,
    note=(
        "With one lane, all devices share its batches (the batch axis); with more, each has lanes of its own (the lane"
        " axis). Compile time and peak memory are those of the process; memory is its highest so far, in rising order"
        " of lanes, and of the two processes that of their parent. From 100 lanes on an epoch is 4 steps of batch 64."
    ),
)
