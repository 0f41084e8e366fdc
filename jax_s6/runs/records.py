"""Every lane's results by epoch, which lane is best, and the rows that files and tables show."""

from typing import Any

import numpy as np

from jax_s6.training.plan import Plan, ranking


class Records:
    """The results of all lanes of a plan.

    Attributes:
        metrics: float64 ``[lanes, epochs]`` by name: ``train_loss``, ``test_accuracy``, ...
        epochs: int ``[lanes]``, the number of epochs with results.
        diverged_at: int ``[lanes]``, a step, or -1.
        pruned_at: int ``[lanes]``, the epoch after which a lane was dropped, or 0.
        rung: The last epoch after which lanes were dropped, or 0.
    """

    def __init__(self, plan: Plan):
        """Make room for the results; there are validation metrics if the plan has a holdout."""
        splits = ("train", "test", *(["validation"] if plan.config.data.holdout else []))
        names = [f"{split}_{kind}" for split in splits for kind in ("loss", "accuracy")]
        names += ["train_gradient_norm", "train_update_norm"]
        self.plan, shape = plan, (plan.num_lanes, plan.num_epochs)
        self.metrics = {name: np.full(shape, np.nan) for name in names}
        self.epochs = np.zeros(plan.num_lanes, np.int64)
        self.diverged_at = np.full(plan.num_lanes, -1, np.int64)
        self.pruned_at = np.zeros(plan.num_lanes, np.int64)
        self.rung = 0

    @property
    def score(self) -> str:
        """The metric that ranks the lanes: the accuracy on held-out images if there are any."""
        return "validation_accuracy" if "validation_accuracy" in self.metrics else "test_accuracy"

    def add_epoch(self, lanes: np.ndarray, epoch: int, values: dict[str, np.ndarray]) -> None:
        """Keep the results of an epoch, from 1."""
        for name, value in values.items():
            self.metrics[name][lanes, epoch - 1] = value
        self.epochs[lanes] = epoch

    def repeat_epoch(self, lanes: np.ndarray, epoch: int) -> None:
        """Repeat the last evaluation of lanes that diverged in an earlier epoch; they train on nothing."""
        for name, values in self.metrics.items():
            values[lanes, epoch - 1] = np.nan if name.startswith("train") else values[lanes, epoch - 2]
        self.epochs[lanes] = epoch

    def latest(self, name: str, lanes: np.ndarray) -> np.ndarray:
        """Return a metric of each lane's last epoch."""
        return self.metrics[name][lanes, self.epochs[lanes] - 1]

    def ranking(self, lanes: np.ndarray) -> np.ndarray:
        """Return lanes from best to worst at their last epochs."""
        accuracy, loss = (self.latest(self.score.replace("accuracy", kind), lanes) for kind in ("accuracy", "loss"))
        return lanes[ranking(accuracy, loss, self.diverged_at[lanes] >= 0)]

    def best_lane(self) -> int:
        """Return the best lane of those that were not dropped."""
        return int(self.ranking(np.flatnonzero((self.epochs > 0) & (self.pruned_at == 0)))[0])

    def history(self, lane: int) -> list[dict[str, Any]]:
        """Return one row per epoch of a lane, with ``epoch`` from 1."""
        last = int(self.epochs[lane])
        columns = {name: values[lane, :last].tolist() for name, values in self.metrics.items()}
        return [{"epoch": k + 1, **{name: values[k] for name, values in columns.items()}} for k in range(last)]

    def to_arrays(self, lanes: np.ndarray) -> dict[str, np.ndarray]:
        """Return the results of some lanes for a checkpoint."""
        kept = {"epochs": self.epochs, "diverged_at": self.diverged_at, **self.metrics}
        return {name: values[lanes] for name, values in kept.items()}

    def from_arrays(self, lanes: np.ndarray, kept: dict[str, np.ndarray]) -> None:
        """Restore what ``to_arrays`` returned."""
        for name, values in {"epochs": self.epochs, "diverged_at": self.diverged_at, **self.metrics}.items():
            values[lanes] = kept[name]
