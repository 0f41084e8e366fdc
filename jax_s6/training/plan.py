"""Plans: the lanes of a run or a sweep, and the groups that share a compiled program. Nothing is compiled here.

A lane is one training run. Lanes whose settings differ only in ``Hyperparameters`` share a program and form a group.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_s6.config import Hyperparameters, StaticSettings, TrainConfig
from jax_s6.errors import InputError
from jax_s6.settings import flatten, replace
from jax_s6.training.augmentation import STRENGTHS

DEFAULT_GRID = {"learning_rate": (0.1, 0.2, 0.5, 0.8, 1.0, 2.0)}
"""The assignment's six learning rates."""
MAX_LANES = 100_000
STATIC = tuple(name for name in StaticSettings._fields if name not in ("uses_dropout", "augments"))
"""Settings that shape the program: each combination of their values is a group, which is compiled once."""
SETTINGS = (*Hyperparameters._fields, *STATIC)
"""All settings that a grid can vary."""


@dataclass(frozen=True)
class Group:
    """Lanes of one compiled program.

    Attributes:
        config: The settings of its first lane. The static ones are those of all its lanes.
        lanes: int ``[n]``, the numbers of the lanes, ascending.
    """

    config: TrainConfig
    lanes: np.ndarray


@dataclass(frozen=True)
class Plan:
    """The lanes of a grid, in the order of the product: the last setting varies fastest.

    Attributes:
        config: The settings that all lanes share.
        grid: The values of each setting that has several, in the order in which lanes are numbered.
        columns: The lanes' values ``[lanes]`` of each setting, in the order of ``SETTINGS``.
        groups: At least one, in the order of their first lanes.
    """

    config: TrainConfig
    grid: dict[str, tuple[Any, ...]]
    columns: dict[str, np.ndarray]
    groups: tuple[Group, ...]

    @property
    def num_lanes(self) -> int:
        """Number of lanes in all groups."""
        return len(self.columns["seed"])

    @property
    def num_epochs(self) -> int:
        """Number of epochs of the longest lane."""
        return int(self.columns["num_epochs"].max())

    def settings(self, lane: int) -> dict[str, Any]:
        """Return a lane's settings as plain Python values."""
        # tolist, not item: a column of numbers beyond int64 holds Python's own integers
        return {name: column[lane : lane + 1].tolist()[0] for name, column in self.columns.items()}

    def hyperparameters(self, lanes: np.ndarray) -> Hyperparameters:
        """Return the traced settings of some lanes, arrays ``[n]``."""
        return Hyperparameters(*(self.columns[name][lanes] for name in Hyperparameters._fields))


def make_plan(config: TrainConfig, grid: Mapping[str, Sequence[Any]]) -> Plan:
    """Make the plan of all combinations of a grid's values.

    Args:
        config: The settings that the grid does not name.
        grid: Values by the name of their setting, any of ``SETTINGS``.

    Returns:
        The plan.

    Raises:
        InputError: A setting is unknown, has no value, the same value twice or one that is out of range, or there are
            more than ``MAX_LANES`` lanes.
    """
    axes = {name: _checked(config, name, values) for name, values in grid.items()}
    shape = tuple(len(values) for values in axes.values())
    num_lanes = math.prod(shape)
    if num_lanes > MAX_LANES:
        product = " x ".join(f"{len(values)} of {name}" for name, values in axes.items() if len(values) > 1)
        raise InputError(f"the grid must have <= {MAX_LANES:,} lanes, got {num_lanes:,} ({product}): give fewer values")
    places = dict(zip(axes, np.unravel_index(np.arange(num_lanes), shape), strict=True)) if axes else {}
    common = flatten(config)
    columns = {
        name: np.asarray(axes[name])[places[name]] if name in axes else np.full(num_lanes, common[name])
        for name in SETTINGS
    }
    swept = {name: values for name, values in axes.items() if len(values) > 1}
    plan = Plan(config, swept, columns, ())
    return dataclasses.replace(plan, groups=_groups(plan))


def _checked(config: TrainConfig, name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Return a setting's values after checking each of them as the configuration does."""
    if name not in SETTINGS:
        raise InputError(f"a grid cannot vary {name!r}; it can vary {', '.join(SETTINGS)}")
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)):
        raise InputError(f"{name} must have a sequence of values in a grid, got {values!r}")
    if len(values) == 0:
        raise InputError(f"{name} must have at least one value, got none")
    plain = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
    for value in plain:
        replace(config, {name: value})
    if isinstance(flatten(config)[name], float):
        plain = tuple(float(value) for value in plain)
    as_traced: Sequence[Any] = np.asarray(plain, np.float32).tolist() if isinstance(plain[0], float) else plain
    for place, value in enumerate(as_traced):
        if value in as_traced[:place]:
            raise InputError(f"{name} has the value {plain[place]} twice: give each value once")
    return plain


def _groups(plan: Plan) -> tuple[Group, ...]:
    """Group lanes by what is static in their programs.

    A program contains dropout and augmentation or not: lanes without them would otherwise be slower, and would equal
    the same run alone only to rounding.
    """
    columns = plan.columns
    uses_dropout = np.maximum.reduce([columns[f"dropout_conv{i}"] for i in (1, 2, 3)]) > 0
    augments = np.maximum.reduce([columns[name] for name in STRENGTHS]) > 0
    keys = [np.unique(c, return_inverse=True)[1] for c in (*(columns[name] for name in STATIC), uses_dropout, augments)]
    _, first, inverse = np.unique(np.stack(keys), axis=1, return_index=True, return_inverse=True)
    return tuple(
        Group(replace(plan.config, plan.settings(int(first[key]))), np.flatnonzero(inverse.ravel() == key))
        for key in np.argsort(first)
    )


def rungs(num_epochs: int) -> tuple[int, ...]:
    """Return the epochs after which successive halving drops half of the lanes: 1, 2, 4, ... < num_epochs.

    Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016.
    """
    return tuple(2**i for i in range((num_epochs - 1).bit_length()))


def ranking(accuracy: np.ndarray, loss: np.ndarray, diverged: np.ndarray) -> np.ndarray:
    """Order lanes from best to worst.

    Args:
        accuracy: ``[n]``.
        loss: ``[n]``; it decides between equal accuracies, before the lower number.
        diverged: bool ``[n]``; these lanes come last.

    Returns:
        int ``[n]``, indices into the arguments.
    """
    return np.lexsort((np.nan_to_num(loss, nan=np.inf), -accuracy, diverged))  # stable; the last key counts first
