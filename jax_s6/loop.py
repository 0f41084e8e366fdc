"""Epochs as scans over data that live on the devices; lanes and batches over a mesh.

One code path trains one lane or many: ``lax.map`` over a device's lanes inside ``shard_map`` over the mesh's
``lane`` and ``batch`` axes. Nothing returns to the host within an epoch.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_s6 import backend, model, steps
from jax_s6.config import Hyperparameters
from jax_s6.state import Keys, Program, TrainState, create_train_state
from jax_s6.steps import Metrics, TrainMetrics

LANE_AXIS, BATCH_AXIS = "lane", model.BATCH_AXIS
EVAL_BATCH = 125


class Split(NamedTuple):
    """Images that are trained on or judged: uint8 ``[n, 28, 28, 1]``, int32 ``[n]``."""

    images: Any
    labels: Any


def epoch_order(key: chex.PRNGKey, epoch: jax.typing.ArrayLike, num_images: int, num_drawn: int) -> jax.Array:
    """Draws the images of one epoch.

    The run's images are one stream of random permutations of the whole set, of which each epoch takes the next
    ``num_drawn``: what an epoch of whole batches leaves out begins the next one, so all images are seen equally often.

    Args:
        key: Of the order.
        epoch: int32, from 0.
        num_images: Images in the set.
        num_drawn: Images in an epoch, at most ``num_images``.

    Returns:
        int32 ``[num_drawn]`` indices.
    """
    # The stream's position is epoch * num_drawn, kept as (pass, offset): the product would overflow int32.
    left_out = num_images - num_drawn
    behind = jnp.asarray(epoch, jnp.int32) * left_out
    passes = (behind + num_images - 1) // num_images
    offset = passes * num_images - behind
    first = jnp.asarray(epoch, jnp.int32) - passes
    keys = jax.vmap(lambda i: jax.random.fold_in(key, first + i))(jnp.arange(2, dtype=jnp.int32))
    permutations = jax.vmap(lambda key: jax.random.permutation(key, num_images))(keys)
    return jax.lax.dynamic_slice(permutations.reshape(-1), (offset,), (num_drawn,))


def train_epoch(
    program: Program, hyper: Hyperparameters, state: TrainState, train: Split, epoch: jax.Array
) -> tuple[TrainState, TrainMetrics]:
    """Trains one lane for one epoch; on a mesh, this device does its part of every batch."""
    keys = Keys.of(hyper.seed)
    size, num_steps = program.config.batch_size, program.steps_per_epoch
    order = epoch_order(keys.order, epoch, program.num_train, num_steps * size).reshape(num_steps, size)
    if program.axis_name is not None:
        part = size // jax.lax.axis_size(program.axis_name)
        order = jax.lax.dynamic_slice_in_dim(order, jax.lax.axis_index(program.axis_name) * part, part, axis=1)

    # Between steps, parameters and statistics are one vector each: XLA:CPU would copy and slice 36 small arrays.
    unravel_params, unravel_stats = (jax.flatten_util.ravel_pytree(x)[1] for x in (state.params, state.batch_stats))

    def pack(state: TrainState) -> TrainState:
        flat = (jax.flatten_util.ravel_pytree(x)[0] for x in (state.params, state.batch_stats))
        return state._replace(params=next(flat), batch_stats=next(flat))

    def unpack(state: TrainState) -> TrainState:
        return state._replace(params=unravel_params(state.params), batch_stats=unravel_stats(state.batch_stats))

    def step(state: TrainState, indices: jax.Array) -> tuple[TrainState, jax.Array]:
        images = train.images.at[indices].get(mode="promise_in_bounds")
        labels = train.labels.at[indices].get(mode="promise_in_bounds")
        state, metrics = steps.train_step(program, hyper, keys, unpack(state), images, labels)
        return pack(state), jnp.stack(metrics)

    state, metrics = jax.lax.scan(step, pack(state), order)
    return unpack(state), TrainMetrics(*metrics.sum(0))


def evaluate(program: Program, state: TrainState, split: Split) -> Metrics:
    """Judges every image of a split with one lane; on a mesh, this device takes every n-th batch."""
    num_images = split.labels.size
    num_parts = 1 if program.axis_name is None else jax.lax.axis_size(program.axis_name)
    part = 0 if program.axis_name is None else jax.lax.axis_index(program.axis_name)
    num_batches = -(-num_images // (EVAL_BATCH * num_parts))

    def judge(number: jax.Array) -> Metrics:
        indices = (number * num_parts + part) * EVAL_BATCH + jnp.arange(EVAL_BATCH, dtype=jnp.int32)
        valid = indices < num_images
        indices = jnp.minimum(indices, num_images - 1)
        return steps.eval_step(program, state, split.images[indices], split.labels[indices], valid)

    metrics = jax.tree.map(lambda x: x.sum(0), jax.lax.map(judge, jnp.arange(num_batches, dtype=jnp.int32)))
    return metrics if program.axis_name is None else jax.lax.psum(metrics, program.axis_name)


class EpochMetrics(NamedTuple):
    """An epoch's sums, ``[lanes]`` each; ``validation`` is None without a holdout."""

    train: TrainMetrics
    test: Metrics
    validation: Metrics | None


def means(metrics: EpochMetrics) -> dict[str, np.ndarray]:
    """Divides an epoch's sums, fetched to the host, by their counts.

    Returns:
        float64 ``[lanes]`` by name: ``train_loss``, ``train_accuracy``, ``train_gradient_norm``, ``train_update_norm``,
        ``test_loss``, ``test_accuracy``, and the last two for ``validation`` where there is one.
    """
    values = {}
    for split, sums in metrics._asdict().items():
        totals = {} if sums is None else sums._asdict()
        count = totals.pop("count", None)
        for name, total in totals.items():
            values[f"{split}_{'accuracy' if name == 'correct' else name}"] = np.asarray(total, np.float64) / count
    return values


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
        recompute = backend.one_core_a_device(devices)
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
