"""How long does a whole epoch of 60,000 images take, their input and augmentation included?"""

from benchmarks.harness import Arm, Question

TORCH = {"torch": "torch"}

QUESTION = Question(
    name="epoch",
    title="A whole epoch of training, images augmented as recipe best has it",
    arms=(
        Arm("ours float32", "benchmarks.arms.recipe_ours:epoch", quick=True),
        Arm("ours bf16", "benchmarks.arms.recipe_ours:epoch", {"precision": "bf16"}, precision="bf16"),
        Arm("ours float32, no augmentation", "benchmarks.arms.recipe_ours:epoch", {"augmented": False}),
        Arm(
            "PyTorch, images in memory, batched affine_grid",
            "benchmarks.arms.recipe_torch:epoch",
            {"source": "memory"},
            TORCH,
            peer=True,
            quick=True,
        ),
        Arm(
            "PyTorch DataLoader, affine warp image by image, 2 workers",
            "benchmarks.arms.recipe_torch:epoch",
            {"source": "loader"},
            TORCH,
            peer=True,
        ),
        Arm(
            "PyTorch, the notebook's loop, no augmentation",
            "benchmarks.arms.recipe_torch:epoch",
            {"source": "notebook"},
            TORCH,
            peer=True,
        ),
    ),
    axis="images",
    cases=(60_000,),
    quick_cases=(6_000,),
    unit="s",
    value="seconds",
    higher_is_better=False,
    rounds=3,
    quick_rounds=1,
    check=None,
    note=(
        "The batch is recipe best's; the notebook's loop has its own of 128, PyTorch's defaults, and an .item() a step."
        " The DataLoader warps with Pillow, as torchvision's RandomAffine does, without the elastic part."
    ),
)
