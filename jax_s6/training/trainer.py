"""The compiled programs of a group of lanes, with lanes and batches spread over a mesh of devices.

The same code trains one lane or many: ``lax.map`` over a device's lanes, inside ``shard_map`` over the mesh's axes
``lane`` and ``batch``.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_s6 import backend
from jax_s6.config import Hyperparameters
from jax_s6.network.net import BATCH_AXIS
from jax_s6.training.epoch import EpochMetrics, Split, evaluate, train_epoch
from jax_s6.training.state import Program, TrainState, create_train_state
from jax_s6.training.step import Metrics, TrainMetrics

LANE_AXIS = "lane"


class Compiled(NamedTuple):
    """A trainer's programs, compiled for a number of lanes and for sizes of splits.

    Attributes:
        create: See ``Trainer``.
        epoch: ``(hyper, state, epoch, train, test, validation) -> (state, EpochMetrics)``: trains for an epoch, then
            evaluates. It donates the state; ``validation`` is a Split or None.
    """

    create: Callable[..., TrainState]
    epoch: Callable[..., tuple[TrainState, EpochMetrics]]


class Trainer:
    """The programs of a group of lanes on a mesh.

    Attributes:
        create: ``(hyper) -> state``. Arrays of both begin with the dimension ``[lanes]``.
        train: ``(hyper, state, epoch, train) -> (state, TrainMetrics)``: trains for an epoch, without an evaluation. It
            donates the state, and raises AssertionError if it is traced twice.
        evaluate: ``(state, splits) -> list of Metrics``, with None for each split that is None.
        program: The static part, with the mesh's batch axis.
    """

    def __init__(self, program: Program, mesh: Mesh, width: int = 1):
        """Prepare the functions. They compile when they are first called.

        Args:
            program: The static part.
            mesh: Its axes are ``lane`` and ``batch``; the size of the latter divides the batch size.
            width: Number of lanes that a device trains at once, by ``vmap``. It takes its lanes in groups of this size.
        """
        chex.clear_trace_counter()  # it counts by function: those of another trainer would count, too
        devices = list(mesh.devices.flat)
        recompute = backend.one_core_per_device(devices)
        self.program = dataclasses.replace(program, axis_name=BATCH_AXIS, recompute=recompute)
        self._mesh = mesh
        lanes, shared = P(LANE_AXIS), P()

        def jit(function: Callable, options: dict[str, Any], *specs: P, donate: tuple[int, ...] = ()) -> Callable:
            function = functools.partial(function, self.program, width)
            # check_vma off: the gradients' sum over the batch axis is written out in train_step.
            mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=lanes, check_vma=False)
            return jax.jit(mapped, donate_argnums=donate, compiler_options=options)

        training, quick = backend.training_options(devices), backend.quick_compilation(devices[0].platform)
        self.create = jit(_create, quick, lanes)
        self.train = jit(_train, training, lanes, lanes, shared, shared, donate=(1,))
        self.evaluate = jit(_evaluate, {}, lanes, shared)

    def compile(self, hyper: Hyperparameters, splits: Sequence[Split | None]) -> Compiled:
        """Compile what the first step needs; the evaluation compiles in the background, during the first epoch.

        Args:
            hyper: The lanes' hyperparameters, on their devices.
            splits: Training, test and validation images, on their devices; the last may be None.
        """
        first, *evaluated = splits
        state = self._abstract_state(hyper)
        pool = ThreadPoolExecutor(1)
        create = pool.submit(lambda: self.create.lower(hyper).compile())
        train = self.train.lower(hyper, state, jnp.int32(0), first).compile()
        evaluate = pool.submit(lambda: self.evaluate.lower(state, evaluated).compile())
        pool.shutdown(wait=False)

        def epoch(hyper, state, number, split, *evaluated):
            state, metrics = train(hyper, state, number, split)
            return state, EpochMetrics(metrics, *evaluate.result()(state, list(evaluated)))

        return Compiled(create.result(), epoch)

    def put_lanes(self, hyper: Hyperparameters) -> Hyperparameters:
        """Place hyperparameters, each ``[lanes]``, on the lanes' devices; the mesh's lane axis divides their number."""
        arrays = Hyperparameters(*(np.asarray(x, np.float32) for x in hyper))
        return self._place(arrays._replace(seed=np.asarray(hyper.seed, np.uint32)), P(LANE_AXIS))

    def put_state(self, state: TrainState) -> TrainState:
        """Place states from the host, arrays ``[lanes, ...]``, on the lanes' devices."""
        return self._place(state, P(LANE_AXIS))

    def put_shared(self, tree: Any) -> Any:
        """Place data that every lane reads on every device."""
        return self._place(tree, P())

    def fetch(self, tree: Any) -> Any:
        """Bring results of the lanes, ``[lanes, ...]``, to the host: those of all processes, to each process."""
        if self._mesh.is_multi_process:
            return multihost_utils.process_allgather(tree, tiled=True)
        return jax.device_get(tree)

    def _abstract_state(self, hyper: Hyperparameters) -> TrainState:
        """Describe what ``create`` returns, so that ``train`` can be compiled before there is a state."""
        sharding = NamedSharding(self._mesh, P(LANE_AXIS))
        shapes = jax.eval_shape(self.create, hyper)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)

    def _place(self, tree: Any, spec: P) -> Any:
        sharding = NamedSharding(self._mesh, spec)
        if not self._mesh.is_multi_process:
            return jax.device_put(tree, sharding)
        # device_put would first compare the whole tree between the processes, which hold the same by construction.
        return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i]), tree)


def make_mesh(devices: list[jax.Device], num_lane_devices: int = 1) -> Mesh:
    """Arrange devices as ``[lane, batch]``: each of the ``num_lane_devices`` rows of devices shares its batches."""
    return Mesh(np.asarray(devices).reshape(num_lane_devices, -1), (LANE_AXIS, BATCH_AXIS))


# One device's part of the programs. Arrays of ``hyper`` and ``state`` begin with the dimension of its lanes.


def _map_lanes(program: Program, function: Callable, lanes: Any, width: int) -> Any:
    """Apply a function of one lane to all, ``width`` at once. A single lane is batched only for the rule that packs."""
    return jax.lax.map(function, lanes, batch_size=None if width == 1 and not program.is_packed else width)


def _create(program: Program, width: int, hyper: Hyperparameters) -> TrainState:
    return jax.lax.map(functools.partial(create_train_state, program), hyper)


@chex.assert_max_traces(n=1)
def _train(
    program: Program, width: int, hyper: Hyperparameters, state: TrainState, epoch: jax.Array, split: Split
) -> tuple[TrainState, TrainMetrics]:
    """Train for an epoch; do nothing if all lanes have diverged: a sweep fills up with such lanes."""

    def train(hyper: Hyperparameters, state: TrainState, epoch: jax.Array, split: Split) -> Any:
        def train_lane(lane: tuple[Hyperparameters, TrainState]) -> tuple[TrainState, TrainMetrics]:
            return train_epoch(program, lane[0], lane[1], split, epoch)

        return _map_lanes(program, train_lane, (hyper, state), width)

    def skip(hyper: Hyperparameters, state: TrainState, epoch: jax.Array, split: Split) -> Any:
        count = jnp.full(state.step.shape, program.steps_per_epoch * program.config.batch_size, jnp.float32)
        nan = jnp.full_like(count, jnp.nan)
        return state, TrainMetrics(nan, jnp.zeros_like(nan), count, nan, nan)

    return jax.lax.cond((state.diverged_at < 0).any(), train, skip, hyper, state, epoch, split)


def _evaluate(program: Program, width: int, state: TrainState, splits: list[Split | None]) -> list[Metrics | None]:
    def evaluate_lanes(split: Split) -> Metrics:
        return _map_lanes(program, lambda lane: evaluate(program, lane, split), state, width)

    return [None if split is None else evaluate_lanes(split) for split in splits]
