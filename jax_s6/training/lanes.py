"""Trains the lanes of one group, epoch by epoch: which devices, how many lanes at once, what when memory is short.

Between epochs the lanes' states are arrays on the host, about 100 kB a lane: what is on the devices is one chunk,
``width`` lanes a device, whatever the size of the grid, and its program is compiled once. A chunk that fails can be
tried again, lanes that are dropped leave no hole, and what a resumed sweep needs is at hand. To move a chunk there and
back takes under a millisecond a lane and epoch.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError

from jax_s6.data import Dataset, split_holdout
from jax_s6.errors import InputError
from jax_s6.training.arrangement import Arrangement
from jax_s6.training.epoch import Split, means
from jax_s6.training.plan import Group, Plan
from jax_s6.training.state import Program, TrainState, create_train_state
from jax_s6.training.trainer import Trainer, make_mesh


class SharedData:
    """What every lane reads: training, test and validation images, the last None without a holdout."""

    def __init__(self, dataset: Dataset, holdout: int):
        """Splits a data set.

        Raises:
            InputError: The holdout leaves nothing to train on.
        """
        images, labels, *held_out = split_holdout(dataset, holdout)
        validation = Split(*held_out) if holdout else None
        self.splits = (Split(images, labels), Split(dataset.test_images, dataset.test_labels), validation)
        self.num_train, self.num_classes = len(labels), dataset.num_classes
        self.nbytes = sum(x.nbytes for x in jax.tree.leaves(self.splits))
        self._placed: tuple[list[jax.Device], Any] | None = None

    def place(self, trainer: Trainer, devices: list[jax.Device]) -> tuple[Any, ...]:
        """Puts the images on each device, once for groups that use the same ones."""
        if self._placed is None or self._placed[0] != devices:
            self._placed = None  # free it first
            self._placed = devices, trainer.put_shared(self.splits)
        return self._placed[1]


def state_shapes(plan: Plan, group: Group) -> TrainState:
    """Returns the shape and type of a lane's state."""
    hyper = jax.tree.map(lambda x: jnp.float32(x[0]), plan.hyperparameters(group.lanes[:1]))
    program = Program(group.config, group.config.batch_size)
    return jax.eval_shape(lambda: create_train_state(program, hyper._replace(seed=jnp.uint32(0))))


class GroupTrainer:
    """A group's lanes on their devices.

    Attributes:
        group: The lanes.
        data: The images.
        epoch: Epochs trained so far.
        state: The lanes' states after it, NumPy arrays ``[lanes of the group, ...]``; None before ``create``.
        arrangement: Where they run; its width shrinks when memory is short or few lanes are left.
        lane_epochs: Epochs of single lanes trained so far.
        compile_seconds: Spent compiling so far.
        train_seconds: Spent training and judging so far.
    """

    def __init__(
        self, plan: Plan, group: Group, data: SharedData, arrangement: Arrangement, say: Callable[[str], None]
    ):
        """Prepares; nothing is compiled before it is needed.

        Args:
            plan: The grid.
            group: Which of its groups.
            data: The images.
            arrangement: Where to run.
            say: Called with a sentence about a change of width.
        """
        self.group, self.arrangement = group, arrangement
        self.epoch, self.lane_epochs = 0, 0
        self.compile_seconds, self.train_seconds = 0.0, 0.0
        self.state: TrainState | None = None
        self.data, self._plan, self._say = data, plan, say
        self._program = Program(group.config, data.num_train, data.num_classes)
        self._trainer: Trainer | None = None

    @property
    def images_per_epoch(self) -> int:
        """Images that a lane trains on in an epoch."""
        return self._program.steps_per_epoch * self._program.config.batch_size

    def create(self) -> None:
        """Draws every lane's initial state from its seed."""
        positions = np.arange(len(self.group.lanes))
        shapes = state_shapes(self._plan, self.group)
        self.state = jax.tree.map(lambda x: np.zeros((len(positions), *x.shape), x.dtype), shapes)
        self._in_chunks(positions, self._create_chunk)

    def train_epoch(self, positions: np.ndarray, on_chunk: Callable[[int], None]) -> dict[str, np.ndarray]:
        """Trains some of the lanes for one epoch, and judges them.

        Args:
            positions: int ``[n]``, which: places in ``group.lanes``.
            on_chunk: Called with the number of lanes that were trained, after each chunk.

        Returns:
            float64 ``[n]`` by name: ``train_loss, train_accuracy, test_loss, ...``.

        Raises:
            InputError: Memory does not hold even one lane a device.
        """
        if self.state is None:
            self.create()
        self._fit_width(len(positions))
        results: list[dict[str, np.ndarray]] = []

        def train(chunk: np.ndarray) -> None:
            results.append(self._train_chunk(chunk))
            on_chunk(len(chunk))

        self._in_chunks(positions, train)
        self.epoch += 1
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]} if results else {}

    def _in_chunks(self, positions: np.ndarray, work: Callable[[np.ndarray], None]) -> None:
        """Does work on all positions, as many at once as memory holds; what is done is not done again."""
        while len(positions):
            chunk = positions[: self.arrangement.chunk]
            try:
                work(chunk)
                positions = positions[len(chunk) :]
                continue
            except JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
            self._halve_width()  # here, where the exception no longer holds on to the arrays of the failed call

    def _halve_width(self) -> None:
        width = self.arrangement.width
        if width == 1:
            size = self._program.config.batch_size
            raise InputError(f"batch_size {size} does not fit in the device's memory even with --width 1: give less")
        self._set_width(width // 2)
        self._say(f"out of memory with {width} lanes at once on a device: going on with {width // 2}")

    def _fit_width(self, num_lanes: int) -> None:
        """Compiles a narrower program where half of the width or less is needed, as after pruning."""
        lanes_each = -(-num_lanes // self.arrangement.lane_devices)
        if lanes_each and lanes_each <= self.arrangement.width // 2:
            self._set_width(lanes_each)

    def _set_width(self, width: int) -> None:
        self.arrangement = self.arrangement._replace(width=width)
        self._trainer = None

    def _prepare(self) -> Trainer:
        """Places the images and compiles, once for a width."""
        if self._trainer is None:
            devices, lane_devices, width = self.arrangement
            trainer = Trainer(self._program, make_mesh(devices, lane_devices), width)
            self._splits = self.data.place(trainer, devices)
            start = time.perf_counter()
            hyper = trainer.put_lanes(self._plan.hyperparameters(np.resize(self.group.lanes, self.arrangement.chunk)))
            self._compiled = trainer.compile(hyper, self._splits)
            self.compile_seconds += time.perf_counter() - start
            self._trainer = trainer
        return self._trainer

    def _put(self, chunk: np.ndarray) -> tuple[np.ndarray, Any]:
        """Fills a chunk up with copies of its first lane, and places the numbers of all."""
        padded = np.concatenate([chunk, np.full(self.arrangement.chunk - len(chunk), chunk[0])])
        return padded, self._prepare().put_lanes(self._plan.hyperparameters(self.group.lanes[padded]))

    def _create_chunk(self, chunk: np.ndarray) -> None:
        _, hyper = self._put(chunk)
        new = self._prepare().fetch(self._compiled.create(hyper))
        self._store(chunk, new)

    def _train_chunk(self, chunk: np.ndarray) -> dict[str, np.ndarray]:
        assert self.state is not None
        padded, hyper = self._put(chunk)
        trainer, start = self._prepare(), time.perf_counter()
        state = jax.tree.map(lambda x: x[padded], self.state)
        state.diverged_at[len(chunk) :] = 0  # a device skips lanes that have diverged
        new = self._compiled.epoch(hyper, trainer.put_state(state), jnp.int32(self.epoch), *self._splits)
        new, metrics = trainer.fetch(new)
        self._store(chunk, new)
        self.train_seconds += time.perf_counter() - start
        self.lane_epochs += len(chunk)
        return {name: values[: len(chunk)] for name, values in means(metrics).items()}

    def _store(self, chunk: np.ndarray, new: TrainState) -> None:
        def assign(kept: np.ndarray, computed: np.ndarray) -> None:
            kept[chunk] = computed[: len(chunk)]

        jax.tree.map(assign, self.state, new)
