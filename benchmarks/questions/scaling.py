"""How does the speed grow with devices, processes and lanes, and what does a lane cost?"""

from benchmarks.definitions import Benchmark, ours

BENCHMARK = Benchmark(
    name="scaling",
    title="Training speed of up to a thousand networks, on several devices and in several processes",
    arms=(
        ours("1 device", "scaling:lanes_on", cases=(1, 2, 8), devices=1),
        ours("all devices, one lane each", "scaling:lanes_on"),
        ours("2 processes of 1 device", "scaling:processes", cases=(2, 8), count=2),
    ),
    axis="lanes",
    cases=(1, 2, 8, 100, 1000),
    unit="images/s, all networks together",
    rounds=2,
    memory=True,
    note=(
        "A lane is one network of a sweep. One lane's batches are split over all devices (mesh axis batch); of several"
        " lanes, each device trains its own (mesh axis lane). Compile time and memory are those of the process. The"
        " memory is its peak so far, with the number of lanes rising; for the two processes it is that of the process"
        " that started them. From 100 lanes on, an epoch is 4 steps of batch size 64."
    ),
)
