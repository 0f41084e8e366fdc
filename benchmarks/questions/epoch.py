"""How long does a whole epoch of 60,000 images take, with input and augmentation?"""

from benchmarks.definitions import Benchmark, ours, peer

PYTORCH = "pytorch.recipe:epoch"
LOADER = "PyTorch DataLoader, affine warp image by image, 2 workers"
BENCHMARK = Benchmark(
    name="epoch",
    title="Time of a whole training epoch, with the images augmented as in recipe best",
    arms=(
        ours("ours float32", "recipe_ours:epoch", quick=True),
        ours("ours bf16", "recipe_ours:epoch", precision="bf16"),
        ours("ours float32, no augmentation", "recipe_ours:epoch", augmented=False),
        peer("PyTorch, images in memory, batched affine_grid", PYTORCH, "torch", quick=True, source="memory"),
        peer(LOADER, PYTORCH, "torch", source="loader"),
        peer("PyTorch, the notebook's loop, no augmentation", PYTORCH, "torch", source="notebook"),
    ),
    axis="images",
    cases=(60_000,),
    quick_cases=(6_000,),
    unit="seconds per epoch",
    value="seconds",
    higher_is_better=False,
    rounds=3,
    quick_rounds=1,
    check=None,
    note=(
        "The batch size is that of recipe best, 128. The notebook's loop is the one of the original assignment, with"
        " PyTorch's defaults and an .item() per step; its batch size is 128, too. The DataLoader warps with Pillow, as"
        " torchvision's RandomAffine does, without the elastic part."
    ),
)
