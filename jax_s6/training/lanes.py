"""Trains the lanes of a group epoch by epoch: which devices, how many lanes at once, what to do if memory is short.

Between epochs the lanes' states are arrays on the host, about 100 kB per lane. Only one chunk is on the devices at a
time, ``width`` lanes per device, so its program is compiled once whatever the number of lanes. A chunk that fails can
be tried again, lanes that are dropped leave no gap, and everything that a resumed run needs is at hand. Moving a chunk
to the devices and back takes less than a millisecond per lane and epoch.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError

from jax_s6.config import StaticSettings
from jax_s6.data import Dataset, split_holdout
from jax_s6.errors import InputError
from jax_s6.training.arrangement import Arrangement, arrange
from jax_s6.training.epoch import Split, means
from jax_s6.training.plan import Group, Plan
from jax_s6.training.state import Program, TrainState, create_train_state
from jax_s6.training.trainer import Trainer, make_mesh


class SharedData:
    """The images that every lane reads: training, test and validation, the last None without a holdout."""

    def __init__(self, dataset: Dataset, holdout: int):
        """Split a data set.

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
        """Copy the images to each device, once for all groups that use the same devices."""
        if self._placed is None or self._placed[0] != devices:
            self._placed = None  # free it first
            self._placed = devices, trainer.put_shared(self.splits)
        return self._placed[1]


def make_trainers(
    plan: Plan,
    dataset: Dataset,
    *,
    devices: Sequence[jax.Device] | None = None,
    width: int | None = None,
    notify: Callable[[str], None] = lambda text: None,
) -> list["GroupTrainer"]:
    """Check what depends on the data and the machine, and arrange each group of a plan on the devices.

    Args:
        plan: The lanes and their groups.
        dataset: The images.
        devices: The devices to use; all if None. Batches are split over more of them if they are given.
        width: Largest number of lanes at once on a device; None: 1 on CPU, and what fits in memory on accelerators.
        notify: Receives a sentence about each change of the width.

    Raises:
        InputError: The batch is larger than the training set, or an argument is out of range.
    """
    if width is not None and width < 1:
        raise InputError(f"width must be >= 1, got {width}")
    shared = SharedData(dataset, plan.config.data.holdout)
    largest = int(plan.columns["batch_size"].max())
    if largest > shared.num_train:
        raise InputError(f"batch_size must be <= {shared.num_train}, the number of training images, got {largest}")
    found, explicit = list(jax.devices() if devices is None else devices), devices is not None
    sizes = [(len(group.lanes), group.config.batch_size) for group in plan.groups]
    arrangements = [arrange(*size, found, width, explicit=explicit) for size in sizes]
    return [GroupTrainer(plan, *pair, shared, notify) for pair in zip(plan.groups, arrangements, strict=True)]


def state_shapes(plan: Plan, group: Group) -> TrainState:
    """Return the shape and type of each array of a lane's state."""
    hyper = jax.tree.map(lambda x: jnp.float32(x[0]), plan.hyperparameters(group.lanes[:1]))
    program = Program(StaticSettings.of(group.config), group.config.batch_size)
    return jax.eval_shape(lambda: create_train_state(program, hyper._replace(seed=jnp.uint32(0))))


class GroupTrainer:
    """The lanes of a group on their devices.

    Attributes:
        group: The lanes.
        data: The images.
        program: The static part of the lanes' program.
        arrangement: Where the lanes run; its width shrinks when memory is short or few lanes are left.
        epoch: Number of epochs trained so far.
        state: The lanes' states after it, NumPy arrays ``[lanes of the group, ...]``; None before ``create``.
        lane_epochs: Epochs trained so far, summed over lanes.
        compile_seconds: Time spent compiling so far.
        epoch_seconds: Time of each epoch, with its evaluation.
    """

    def __init__(
        self, plan: Plan, group: Group, arrangement: Arrangement, data: SharedData, notify: Callable[[str], None]
    ):
        """Keep the arguments of ``make_trainers``; nothing is compiled before it is needed."""
        self.group, self.arrangement, self.data = group, arrangement, data
        self.program = Program(StaticSettings.of(group.config), data.num_train, data.num_classes)
        self.epoch, self.lane_epochs, self.compile_seconds = 0, 0, 0.0
        self.epoch_seconds: list[float] = []
        self.state: TrainState | None = None
        self._plan, self._notify = plan, notify
        self._trainer: Trainer | None = None

    @property
    def images_per_epoch(self) -> int:
        """Number of images that a lane trains on in an epoch."""
        return self.program.steps_per_epoch * self.group.config.batch_size

    @property
    def batch_parts(self) -> int:
        """Number of devices that share each batch of a lane."""
        return len(self.arrangement.devices) // self.arrangement.lane_devices

    def create(self) -> None:
        """Draw every lane's initial state from its seed."""
        positions = np.arange(len(self.group.lanes))
        shapes = state_shapes(self._plan, self.group)
        self.state = jax.tree.map(lambda x: np.zeros((len(positions), *x.shape), x.dtype), shapes)
        self._in_chunks(positions, self._create_chunk)

    def train_epoch(
        self, positions: np.ndarray, on_chunk: Callable[[int], None] = lambda count: None
    ) -> dict[str, np.ndarray]:
        """Train some of the lanes for one epoch, and evaluate them.

        Args:
            positions: int ``[n]``, which lanes: places in ``group.lanes``.
            on_chunk: Receives the number of lanes that were trained, after each chunk.

        Returns:
            float64 ``[n]`` by name: ``train_loss, train_accuracy, test_loss, ...``.

        Raises:
            InputError: Memory does not hold even one lane per device.
        """
        if self.state is None:
            self.create()
        self._fit_width(len(positions))
        results: list[dict[str, np.ndarray]] = []
        self.epoch_seconds.append(0.0)

        def train(chunk: np.ndarray) -> None:
            results.append(self._train_chunk(chunk))
            on_chunk(len(chunk))

        self._in_chunks(positions, train)
        self.epoch += 1
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]} if results else {}

    def _in_chunks(self, positions: np.ndarray, work: Callable[[np.ndarray], None]) -> None:
        """Do work on all positions, as many at once as memory holds; finished work is not repeated."""
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
            size = self.group.config.batch_size
            raise InputError(f"batch_size {size} does not fit in the device's memory even with --width 1: give less")
        self._set_width(width // 2)
        self._notify(f"out of memory with {width} lanes at once on a device: continuing with {width // 2}")

    def _fit_width(self, num_lanes: int) -> None:
        """Compile a narrower program where half of the width or less is needed, as after pruning."""
        lanes_each = -(-num_lanes // self.arrangement.lane_devices)
        if lanes_each and lanes_each <= self.arrangement.width // 2:
            self._set_width(lanes_each)

    def _set_width(self, width: int) -> None:
        self.arrangement = self.arrangement._replace(width=width)
        self._trainer = None

    def prepare(self) -> Trainer:
        """Place the images and compile, once per width; return the compiled functions' owner."""
        if self._trainer is None:
            devices, lane_devices, width = self.arrangement
            trainer = Trainer(self.program, make_mesh(devices, lane_devices), width)
            self._splits = self.data.place(trainer, devices)
            start = time.perf_counter()
            hyper = trainer.put_lanes(self._plan.hyperparameters(np.resize(self.group.lanes, self.arrangement.chunk)))
            self._compiled = trainer.compile(hyper, self._splits)
            self.compile_seconds += time.perf_counter() - start
            self._trainer = trainer
        return self._trainer

    def _put(self, chunk: np.ndarray) -> tuple[np.ndarray, Any]:
        """Pad a chunk with copies of its first lane, and place the hyper-parameters of all."""
        padded = np.concatenate([chunk, np.full(self.arrangement.chunk - len(chunk), chunk[0])])
        return padded, self.prepare().put_lanes(self._plan.hyperparameters(self.group.lanes[padded]))

    def _create_chunk(self, chunk: np.ndarray) -> None:
        _, hyper = self._put(chunk)
        self._store(chunk, self.prepare().fetch(self._compiled.create(hyper)))

    def _train_chunk(self, chunk: np.ndarray) -> dict[str, np.ndarray]:
        assert self.state is not None
        padded, hyper = self._put(chunk)
        trainer, start = self.prepare(), time.perf_counter()
        state = jax.tree.map(lambda x: x[padded], self.state)
        state.diverged_at[len(chunk) :] = 0  # a device skips lanes that have diverged
        new = self._compiled.epoch(hyper, trainer.put_state(state), jnp.int32(self.epoch), *self._splits)
        new, metrics = trainer.fetch(new)
        self._store(chunk, new)
        self.epoch_seconds[-1] += time.perf_counter() - start
        self.lane_epochs += len(chunk)
        return {name: values[: len(chunk)] for name, values in means(metrics).items()}

    def _store(self, chunk: np.ndarray, new: TrainState) -> None:
        def assign(kept: np.ndarray, computed: np.ndarray) -> None:
            kept[chunk] = computed[: len(chunk)]

        jax.tree.map(assign, self.state, new)
