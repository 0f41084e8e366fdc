"""The compiled programs of a group of lanes: lanes and batches over a mesh of devices.

One code path trains one lane or many: ``lax.map`` over a device's lanes inside ``shard_map`` over the mesh's
``lane`` and ``batch`` axes.
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
from jax_s6.network import net as model
from jax_s6.training.epoch import EpochMetrics, Split, evaluate, train_epoch
from jax_s6.training.state import Program, TrainState, create_train_state
from jax_s6.training.step import TrainMetrics

LANE_AXIS, BATCH_AXIS = "lane", model.BATCH_AXIS


class Compiled(NamedTuple):
    """A Trainer's programs for so many lanes and such data.

    Attributes:
        create: As the Trainer's.
        epoch: ``(hyper, state, epoch, train, test, validation) -> (state, EpochMetrics)``: trains, then judges. Donates
            the state; ``validation`` is a Split or None.
    """

    create: Callable[..., TrainState]
    epoch: Callable[..., tuple[TrainState, EpochMetrics]]


class Trainer:
    """The programs of a group of lanes on a mesh.

    Attributes:
        create: ``(hyper) -> state``, each with leading dimension ``[lanes]``.
        train: ``(hyper, state, epoch, train) -> (state, TrainMetrics)``: an epoch without the judging. Donates the
            state, and is traced once, or says so.
        judge: ``(state, splits) -> a list of Metrics``, with None for each split that is None.
        program: The static part, on the mesh's batch axis.
    """

    def __init__(self, program: Program, mesh: Mesh, width: int = 1):
        """Prepares the functions; they compile when first called.

        Args:
            program: The static part.
            mesh: With the axes ``lane`` and ``batch``; the latter's size divides the batch size.
            width: Lanes that a device trains at once, by ``vmap``; it takes its lanes in groups of this many.
        """
        chex.clear_trace_counter()  # it counts by source line: another Trainer's epoch would count as this one's
        devices = list(mesh.devices.flat)
        recompute = backend.one_core_per_device(devices)
        self.program = program = dataclasses.replace(program, axis_name=BATCH_AXIS, recompute=recompute)
        self._mesh = mesh

        def train_lanes(hyper, state, number, train):
            def train_lane(lane):
                return train_epoch(program, *lane, train, number)  # pyright: ignore[reportCallIssue]

            return jax.lax.map(train_lane, (hyper, state), batch_size=width)

        def pass_over(hyper, state, number, train):
            shape = state.step.shape
            count = jnp.full(shape, program.steps_per_epoch * program.config.batch_size, jnp.float32)
            nan = jnp.full(shape, jnp.nan, jnp.float32)
            return state, TrainMetrics(nan, jnp.zeros_like(nan), count, nan, nan)

        @chex.assert_max_traces(n=1)
        def train(hyper, state, number, split):
            # A device whose lanes have all diverged has nothing to train; a sweep pads with such lanes.
            alive = (state.diverged_at < 0).any()
            return jax.lax.cond(alive, train_lanes, pass_over, hyper, state, number, split)

        def judge(state, splits):
            def judge_lanes(split):
                return jax.lax.map(lambda lane: evaluate(program, lane, split), state, batch_size=width)

            return [None if split is None else judge_lanes(split) for split in splits]

        def create(hyper):
            return jax.lax.map(functools.partial(create_train_state, program), hyper)

        lanes, shared = P(LANE_AXIS), P()
        # check_vma off: the gradients' sum over the batch axis is written out in train_step.
        shard = functools.partial(jax.shard_map, mesh=mesh, out_specs=lanes, check_vma=False)
        options = backend.quick_compilation(devices[0].platform)
        self.create = jax.jit(shard(create, in_specs=lanes), compiler_options=options)
        inputs, options = (lanes, lanes, shared, shared), backend.training_options(devices)
        self.train = jax.jit(shard(train, in_specs=inputs), donate_argnums=1, compiler_options=options)
        self.judge = jax.jit(shard(judge, in_specs=(lanes, shared)))

    def compile(self, hyper: Hyperparameters, splits: Sequence[Split | None]) -> Compiled:
        """Compiles what the first step needs; the judging compiles in the background, while the first epoch trains.

        Args:
            hyper: The lanes' numbers, placed.
            splits: Training, test and validation images, placed; the last may be None.
        """
        first, *judged = splits
        state = self._abstract_state(hyper)
        pool = ThreadPoolExecutor(1)
        create = pool.submit(lambda: self.create.lower(hyper).compile())
        train = self.train.lower(hyper, state, jnp.int32(0), first).compile()
        judge = pool.submit(lambda: self.judge.lower(state, judged).compile())
        pool.shutdown(wait=False)

        def epoch(hyper, state, number, split, *judged):
            state, metrics = train(hyper, state, number, split)
            return state, EpochMetrics(metrics, *judge.result()(state, list(judged)))

        return Compiled(create.result(), epoch)

    def put_lanes(self, hyper: Hyperparameters) -> Hyperparameters:
        """Places the lanes' numbers, each ``[lanes]``, on their devices; lanes are a multiple of the mesh's."""
        arrays = Hyperparameters(*(np.asarray(x, np.float32) for x in hyper))
        return self._place(arrays._replace(seed=np.asarray(hyper.seed, np.uint32)), P(LANE_AXIS))

    def put_state(self, state: TrainState) -> TrainState:
        """Places states from the host, arrays ``[lanes, ...]``, on their lanes' devices."""
        return self._place(state, P(LANE_AXIS))

    def _abstract_state(self, hyper: Hyperparameters) -> TrainState:
        """Describes what ``create`` returns, for compiling ``train`` before there is a state."""
        sharding = NamedSharding(self._mesh, P(LANE_AXIS))
        shapes = jax.eval_shape(self.create, hyper)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)

    def put_shared(self, tree: Any) -> Any:
        """Places data that every lane reads on every device."""
        return self._place(tree, P())

    def fetch(self, tree: Any) -> Any:
        """Brings the lanes' results, ``[lanes, ...]``, to the host: those of all processes, to each of them."""
        if self._mesh.is_multi_process:
            return multihost_utils.process_allgather(tree, tiled=True)
        return jax.device_get(tree)

    def _place(self, tree: Any, spec: P) -> Any:
        sharding = NamedSharding(self._mesh, spec)
        if not self._mesh.is_multi_process:
            return jax.device_put(tree, sharding)
        # device_put would first compare the whole tree between the processes, which hold the same by construction.
        return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i]), tree)


def make_mesh(devices: list[jax.Device], num_lane_devices: int = 1) -> Mesh:
    """Arranges devices as ``[lane, batch]``: so many groups of lanes, each batch split over the rest."""
    return Mesh(np.asarray(devices).reshape(num_lane_devices, -1), (LANE_AXIS, BATCH_AXIS))
