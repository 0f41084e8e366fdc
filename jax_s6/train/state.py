"""What one run keeps between epochs, so that it can go on: its state and its history."""

import logging
from collections.abc import Sequence
from typing import Any

import jax

from jax_s6.runs import checkpoints as checkpoint
from jax_s6.runs.checkpoints import Checkpoint, CheckpointConfig, Store
from jax_s6.runs.signals import Stopper
from jax_s6.training.state import TrainState
from jax_s6.training.trainer import Trainer

_logger = logging.getLogger(__name__)


class Keeper:
    """Writes a run's checkpoints, and takes it up from one. Without a store it does neither."""

    def __init__(
        self,
        store: Store | None = None,
        config: CheckpointConfig | None = None,
        start: Checkpoint | None = None,
        stopper: Stopper | None = None,
    ):
        """Prepares.

        Args:
            store: Where to.
            config: How often; the default's if None.
            start: Where the run was; None for its beginning.
            stopper: Says when to end before the end.
        """
        self._store, self._start, self._stopper = store, start, stopper
        self._config = config or CheckpointConfig()

    def __enter__(self) -> "Keeper":
        """Lets ``with`` end only when all is written, whatever ends the work inside."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits.

        Raises:
            InputError: A checkpoint could not be written.
        """
        self.wait()

    def restore(self, trainer: Trainer, state: TrainState) -> tuple[TrainState, list[dict[str, Any]]]:
        """Returns the state and the history to go on from: ``state`` and no rows at the beginning.

        From here on, a signal ends the run at the end of an epoch.

        Raises:
            InputError: The checkpoint holds another state.
        """
        if self._stopper is not None:
            self._stopper.defer()
        if self._start is None:
            return state, []
        kept = checkpoint.unflatten(state, self._start.arrays, "state")
        devices, here = self._start.about["devices"], jax.tree.leaves(state)[0].sharding.num_devices
        if devices != here:
            _logger.warning("the run was on %d devices and is now on %d: equal to rounding only", devices, here)
        return trainer.put_state(kept), list(self._start.about["history"])

    def epoch_done(self, state: TrainState, history: Sequence[dict[str, Any]], num_epochs: int) -> None:
        """Keeps the state after an epoch if that is due, and ends the run if that is asked.

        Raises:
            InputError: A checkpoint cannot be written.
            Stopped: A signal came.
        """
        row, stop = history[-1], self._stopper is not None and self._stopper.requested is not None
        if self._store is not None and (stop or self._config.is_due(row["epoch"], num_epochs)):
            about = {"history": history, "devices": jax.tree.leaves(state)[0].sharding.num_devices}
            arrays = checkpoint.flatten(jax.device_get(state), "state")
            self._store.save(row["epoch"], arrays, about, row.get("validation_accuracy", row["test_accuracy"]))
        if stop and self._stopper is not None and row["epoch"] < num_epochs:
            self._stopper.stop_if_requested()

    def wait(self) -> None:
        """Waits until the last checkpoint is written."""
        if self._store is not None:
            self._store.wait()
