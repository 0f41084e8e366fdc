"""What a lane carries from step to step, and what of it is fixed when the program is compiled."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jax_s6.config import Hyperparameters, TrainConfig
from jax_s6.network import net as model
from jax_s6.training import optimizers as optim


@dataclass(frozen=True)
class Program:
    """The static part of a run: what another compilation would be needed for.

    Attributes:
        config: Kinds and sizes. Its traced numbers are not read, except for whether dropout and augmentation are on.
        num_train: Training images, at least the batch size.
        num_classes: Labels are in ``[0, num_classes)``.
        axis_name: The mesh axis over which a batch is split, or None outside a mesh.
        recompute: As the network's.
        platform: What it is compiled for; the default backend if None.
    """

    config: TrainConfig
    num_train: int
    num_classes: int = 10
    axis_name: str | None = None
    recompute: bool = False
    platform: str | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return self.num_train // self.config.batch_size

    @property
    def num_steps(self) -> int:
        """Steps in the run."""
        return self.steps_per_epoch * self.config.num_epochs

    def net(self) -> model.Net:
        """The network, with this program's convolution, precision, batch axis and way to the gradient."""
        return model.create(
            self.config.model, axis_name=self.axis_name, recompute=self.recompute, platform=self.platform
        )

    def optimizer(self, hyper: Hyperparameters) -> optax.GradientTransformation:
        """A lane's optimizer."""
        return optim.make_optimizer(self.config.optimizer, hyper, self.num_steps, self.steps_per_epoch)


class TrainState(NamedTuple):
    """One lane's state.

    Attributes:
        step: int32, steps taken.
        params: 11,952 float32 parameters.
        batch_stats: Running means and variances.
        opt_state: Optax's state.
        diverged_at: int32, the step whose loss was not finite, from which on nothing changes; -1 if none.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    diverged_at: jax.Array


class Keys(NamedTuple):
    """A lane's random keys, one a purpose, so that switching one thing on changes nothing else."""

    init: chex.PRNGKey
    order: chex.PRNGKey
    augment: chex.PRNGKey
    dropout: chex.PRNGKey

    @classmethod
    def of(cls, seed: jax.typing.ArrayLike) -> "Keys":
        """Derives the keys from a seed (uint32)."""
        return cls(*jax.random.split(jax.random.key(seed), 4))


def create_train_state(program: Program, hyper: Hyperparameters) -> TrainState:
    """Draws a lane's initial state from its seed."""
    variables = model.init(Keys.of(hyper.seed).init)
    params = variables["params"]
    opt_state = program.optimizer(hyper).init(params)
    return TrainState(jnp.int32(0), params, variables["batch_stats"], opt_state, jnp.int32(-1))
