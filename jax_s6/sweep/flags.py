"""The settings of a sweep as command-line flags: those of ``train``, most of which take several values."""

import dataclasses
import functools
from typing import Annotated, Any, get_args

from typing_extensions import Doc

from jax_s6.config import TrainConfig
from jax_s6.settings import flatten, is_section, replace
from jax_s6.training.plan import DEFAULT_GRID, SETTINGS

_TAKES_SEVERAL = {*SETTINGS} - {"nesterov"}  # --nesterov takes no value, as in train; sweep() can vary it
_RATES = " ".join(map(str, DEFAULT_GRID["learning_rate"]))
_MORE_HELP = {"learning_rate": f" Without this flag, and if no other has several values, the sweep is over {_RATES}."}


class _Default(tuple[Any, ...]):
    """Values that come from no flag: tyro returns the very object that it was given as the default."""


@functools.cache
def _flags_of(kind: Any) -> Any:
    """Make a dataclass like one with settings, whose settings are tuples where a sweep can vary them."""
    fields = []
    for f in dataclasses.fields(kind):
        flag, (value_type, doc) = f.type, get_args(f.type)
        if dataclasses.is_dataclass(value_type):
            flag = Annotated[_flags_of(value_type), doc]
        elif f.name in _TAKES_SEVERAL:
            flag = Annotated[tuple[value_type, ...], Doc(doc.documentation + _MORE_HELP.get(f.name, ""))]
        fields.append((f.name, flag))
    return dataclasses.make_dataclass(kind.__name__, fields, kw_only=True, frozen=True)


SweepFlags = _flags_of(TrainConfig)
"""The settings of ``TrainConfig``, each that a sweep can vary as a tuple of values."""


def to_flags(settings: Any) -> Any:
    """Return the values that the flags have if none is given: those of a configuration."""
    values = {
        name: to_flags(value) if is_section(value) else _Default([value]) if name in _TAKES_SEVERAL else value
        for name, value in vars(settings).items()
    }
    return _flags_of(type(settings))(**values)


def from_flags(flags: Any, base: TrainConfig) -> tuple[TrainConfig, dict[str, tuple[Any, ...]]]:
    """Convert the flags to the settings that all lanes share and a grid, of the settings with several values.

    If no setting has several values and no learning rate is given, the grid is the default: the assignment's six rates.

    Args:
        flags: The command line, which tyro read with ``to_flags(base)`` as the default.
        base: The settings of a recipe or a file.

    Raises:
        InputError: A value is not allowed.
    """
    values = flatten(flags)
    # Learning rates first and seeds last: lanes that differ only in their seed are numbered one after another.
    names = sorted(values, key=lambda name: (name == "seed", name != "learning_rate"))
    grid = {name: values[name] for name in names if name in _TAKES_SEVERAL and len(values[name]) != 1}
    if not grid and isinstance(values["learning_rate"], _Default):
        grid = dict(DEFAULT_GRID)
    shared = {name: value[0] if name in _TAKES_SEVERAL else value for name, value in values.items() if name not in grid}
    return replace(base, shared), grid
