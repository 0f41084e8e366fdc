"""The programs to compile: a training epoch of jax_s6 by arrangement, and of the peers that are written in JAX."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from benchmarks.arms import flax, lax
from benchmarks.arms.ours import make_config
from jax_s6.config import ConvName, Hyperparameters, StaticSettings
from jax_s6.training.epoch import Split
from jax_s6.training.state import Program
from jax_s6.training.trainer import LANE_AXIS, Trainer, make_mesh


class Case(NamedTuple):
    """What is varied in addition to the arm.

    Attributes:
        lanes: Number of networks trained at once.
        batch: Number of images per step and lane.
        precision: ``float32`` or ``bf16``.
        images: Number of images per epoch.
    """

    lanes: int
    batch: int
    precision: str
    images: int = 60_000

    @property
    def steps(self) -> int:
        """Number of steps per epoch."""
        return self.images // self.batch


class Arm(NamedTuple):
    """An implementation to compile.

    Attributes:
        name: Its name in tables and pictures.
        lower: ``(device, platform, case)`` to JAX's lowered program.
        peer: Whether it is another library's.
        precisions: The precisions that it has.
        convolution: The setting of the same name, of our arms.
    """

    name: str
    lower: Callable[[Any, str, Case], Any]
    peer: bool
    precisions: tuple[str, ...] = ("float32", "bf16")
    convolution: str | None = None


def lower_ours(device: Any, platform: str, case: Case, *, convolution: str) -> Any:
    """Lower jax_s6's training epoch. All lanes are trained at once, each on its own order of the images."""
    mesh = make_mesh([device])
    config = make_config(case.batch, case.precision, convolution)
    trainer = Trainer(Program(StaticSettings.of(config), case.images, platform=platform), mesh, case.lanes)
    lanes, shared = NamedSharding(mesh, P(LANE_AXIS)), NamedSharding(mesh, P())
    number = jax.ShapeDtypeStruct((case.lanes,), jnp.float32, sharding=lanes)
    hyper = Hyperparameters(*[number] * len(Hyperparameters._fields))
    hyper = hyper._replace(seed=number.update(dtype=jnp.uint32))
    state = _placed(jax.eval_shape(trainer.create, hyper), lanes)
    images: Any = jax.ShapeDtypeStruct((case.images, 28, 28, 1), jnp.uint8, sharding=shared)
    labels: Any = jax.ShapeDtypeStruct((case.images,), jnp.int32, sharding=shared)
    epoch = jax.ShapeDtypeStruct((), jnp.int32, sharding=shared)
    return trainer.train.lower(hyper, state, epoch, Split(images, labels))


def lower_flax(device: Any, platform: str, case: Case) -> Any:
    """Lower a scan of Flax's step, under ``vmap`` if there are several lanes, as ``benchmarks sweep`` measures it."""
    dtype = jnp.bfloat16 if case.precision == "bf16" else None
    return _lower_scan(device, case, functools.partial(flax.step, dtype=dtype), flax.initial_state, (28, 28, 1))


def lower_lax(device: Any, platform: str, case: Case) -> Any:
    """Lower a scan of the step in plain ``lax.conv``, under ``vmap`` if there are several lanes."""
    return _lower_scan(device, case, lax.step, lax.initial_state, (1, 28, 28))


def _lower_scan(device: Any, case: Case, step: Callable, initial_state: Callable, image: tuple[int, ...]) -> Any:
    at = SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((case.steps, case.batch, *image), jnp.float32, sharding=at)
    y = jax.ShapeDtypeStruct((case.steps, case.batch), jnp.int32, sharding=at)
    state = _placed(jax.eval_shape(initial_state), at)
    if case.lanes > 1:
        step = jax.vmap(step, in_axes=(0, None, None))
        state = jax.tree.map(lambda leaf: leaf.update(shape=(case.lanes, *leaf.shape)), state)
    scan = jax.jit(lambda state, data: jax.lax.scan(lambda s, pair: step(s, *pair), state, data), donate_argnums=0)
    return scan.lower(state, (x, y))


def _placed(tree: Any, sharding: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _ours(convolution: str) -> Arm:
    lower = functools.partial(lower_ours, convolution=convolution)
    return Arm(f"ours, {convolution}", lower, peer=False, convolution=convolution)


ARMS = (
    *(_ours(name) for name in get_args(ConvName) if name != "auto"),
    Arm("Flax nn.Conv", lower_flax, peer=True),
    Arm("lax.conv", lower_lax, peer=True, precisions=("float32",)),
)
