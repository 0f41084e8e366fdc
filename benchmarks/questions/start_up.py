"""How long does it take from the command to the first training step?"""

from benchmarks.definitions import Benchmark, ours, peer

BENCHMARK = Benchmark(
    name="start_up",
    title="Time from starting Python to the first training step, with decoded data in the cache",
    arms=(
        ours("ours, programs compiled", "start_up:ours", cold=True),
        ours("ours, programs in the cache", "start_up:ours", cold=False),
        peer("PyTorch eager", "start_up:torch", "torch", mode="eager"),
        peer("PyTorch compiled, empty cache", "start_up:torch", "torch", mode="compiled"),
    ),
    axis="recipe",
    cases=("best",),
    unit="seconds",
    value="seconds",
    higher_is_better=False,
    rounds=3,
    check=None,
    note="Each start is a new process. The seconds of each part are those of the last start.",
)
