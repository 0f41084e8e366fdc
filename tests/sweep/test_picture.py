"""The picture of a sweep."""

import numpy as np
import pytest
from PIL import Image

from jax_s6.config import TrainConfig
from jax_s6.sweep.picture import plot_sweep
from jax_s6.training.plan import make_plan


@pytest.mark.parametrize("swept", [{"momentum": 60}, {"learning_rate": 6, "optimizer": 2, "seed": 3}, {"seed": 1}])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_picture_is_drawn_for_any_grid_and_for_lost_lanes(tmp_path, swept, split):
    values = {"momentum": np.linspace(0, 0.9, 60), "learning_rate": (0.1, 0.2, 0.5, 0.8, 1.0, 2.0), "seed": range(3)}
    values["optimizer"] = ("sgd", "adamw")
    plan = make_plan(TrainConfig(), {name: values[name][:count] for name, count in swept.items()})
    history, rows = [], []
    for lane in range(plan.num_lanes):
        lost = lane == 1
        losses = [float("nan") if lost and epoch > 1 else 2.0 / epoch for epoch in (1, 2, 3)]
        history += [{"lane": lane, "epoch": e, f"{split}_loss": loss} for e, loss in enumerate(losses, start=1)]
        accuracy = {f"{split}_accuracy": 0.9}
        rows.append({"lane": lane, **plan.settings(lane), **accuracy, "diverged_at": 7 if lost else None})
    plot_sweep(tmp_path / "sweep.png", rows, history, plan.grid)
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.width > 1000
