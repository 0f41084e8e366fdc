"""What a lane carries from step to step, and what is fixed when its program is compiled."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Int32, Key

from jax_s6 import backend
from jax_s6.config import Hyperparameters, StaticSettings
from jax_s6.network import net
from jax_s6.training.optimizers import make_optimizer


@dataclass(frozen=True)
class Program:
    """The static part of a run: another value of any of these needs another compilation.

    Attributes:
        config: The settings that shape the program.
        num_train: Number of training images, at least the batch size.
        num_classes: Labels are in ``[0, num_classes)``.
        axis_name: The mesh axis over which a batch is split, or None outside a mesh.
        recompute: See ``Net``.
        platform: The platform to compile for; None: that of the default backend.
    """

    config: StaticSettings
    num_train: int
    num_classes: int = 10
    axis_name: str | None = None
    recompute: bool = False
    platform: str | None = None

    @property
    def is_packed(self) -> bool:
        """Whether the lanes that are trained at once stand side by side as channels; see ``network.packed``."""
        return backend.convolution(self.config, self.platform) == "packed"

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in the training images."""
        return self.num_train // self.config.batch_size

    @property
    def num_steps(self) -> int:
        """Number of steps in the run."""
        return self.steps_per_epoch * self.config.num_epochs

    def net(self, num_devices: int = 1) -> net.Net:
        """Return the network; a training batch is split over a number of devices."""
        chunks = backend.floor_power_of_two(backend.num_chunks(self.config.batch_size, self.platform) // num_devices)
        choices = {"axis_name": self.axis_name, "recompute": self.recompute, "platform": self.platform}
        return net.create(self.config, num_chunks=chunks, **choices)

    def optimizer(self, hyper: Hyperparameters) -> optax.GradientTransformation:
        """Return the optimizer of a lane with these hyperparameters."""
        return make_optimizer(self.config, hyper, self.num_steps, self.steps_per_epoch)


class TrainState(NamedTuple):
    """One lane's state.

    Attributes:
        step: Number of steps taken.
        params: 11,952 float32 parameters.
        batch_stats: Running means and variances.
        opt_state: Optax's state.
        diverged_at: The first step whose loss was not finite, since which nothing has changed; -1: none.
    """

    step: Int32[Array, ""]
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    diverged_at: Int32[Array, ""]


class Keys(NamedTuple):
    """A lane's random keys, one per purpose: switching one purpose on does not change the numbers of the others."""

    init: Key[Array, ""]
    order: Key[Array, ""]
    augment: Key[Array, ""]
    dropout: Key[Array, ""]

    @classmethod
    def of(cls, seed: ArrayLike) -> "Keys":
        """Derive the keys from a uint32 seed."""
        return cls(*jax.random.split(jax.random.key(seed), 4))


def create_train_state(program: Program, hyper: Hyperparameters) -> TrainState:
    """Draw a lane's initial state from its seed."""
    variables = net.init(Keys.of(hyper.seed).init)
    params = variables["params"]
    opt_state = program.optimizer(hyper).init(params)
    return TrainState(jnp.int32(0), params, variables["batch_stats"], opt_state, jnp.int32(-1))
