"""How settings are declared, checked, read and changed. The settings themselves are in ``config``.

A setting is a field of a frozen dataclass, and a section is a field that holds such a dataclass. No two settings have
the same name, so ``flatten`` and ``replace`` find each by its name alone.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from typing_extensions import Doc

from jax_s6.errors import InputError

T = TypeVar("T")
_COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le}


class Setting(Doc):
    """Describes a setting in its annotation: the ``--help`` text, which tyro reads, and the range of a number."""

    def __init__(self, text: str, ge: float | None = None, le: float | None = None, *, gt: float | None = None):
        """Take whole sentences, and the bounds of a number: ``>= ge`` or ``> gt``, and ``<= le``."""
        self._limits = {">=": ge, ">": gt, "<=": le}
        self.bounds = " and ".join(f"{sign} {limit:,}" for sign, limit in self._limits.items() if limit is not None)
        allowed = self.bounds.replace(",", "")  # tyro would break a line at a comma
        super().__init__(f"{text} Allowed: {allowed}." if allowed else text)

    def broken_rule(self, kind: Any, value: Any) -> str | None:
        """Return what a value of a type should have been, or None if it is allowed."""
        if get_origin(kind) is Literal:
            return None if value in get_args(kind) else f"one of {', '.join(get_args(kind))}"
        if kind is bool:
            return None if isinstance(value, bool) else "true or false"
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind is int and not (number and isinstance(value, int)):
            return "a whole number"
        limits = [(sign, limit) for sign, limit in self._limits.items() if limit is not None]
        allowed = number and math.isfinite(value) and all(_COMPARE[sign](value, limit) for sign, limit in limits)
        return self.bounds if limits and not allowed else None


class Settings:
    """Base class of the dataclasses that hold settings: it checks each value when the object is made."""

    def __post_init__(self) -> None:
        """Raise InputError, which names the first setting with a value that is not allowed."""
        for name, (kind, setting) in _declared(type(self)).items():
            if (rule := setting.broken_rule(kind, getattr(self, name))) is not None:
                raise InputError(f"{name} must be {rule}, got {getattr(self, name)!r}")


@functools.cache
def _declared(kind: type) -> dict[str, tuple[Any, Setting]]:
    """Return the type and the description of each setting of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    declared = {field.name: get_args(hints[field.name]) for field in dataclasses.fields(kind)}  # pyright: ignore
    return {name: args for name, args in declared.items() if len(args) == 2 and isinstance(args[1], Setting)}


def is_section(value: Any) -> bool:
    """Return whether a value holds settings itself."""
    return isinstance(value, Mapping) or dataclasses.is_dataclass(value)


def flatten(settings: Any, *, dotted: bool = False) -> dict[str, Any]:
    """Return all settings by name.

    Args:
        settings: A dataclass or a mapping; each value that is one of the two is a section.
        dotted: Whether to name a setting with its section, as in ``model.dropout_conv1``.
    """
    flat: dict[str, Any] = {}
    for name, value in (settings if isinstance(settings, Mapping) else vars(settings)).items():
        if is_section(value):
            inner = flatten(value, dotted=dotted)
            flat |= {f"{name}.{key}": item for key, item in inner.items()} if dotted else inner
        else:
            flat[name] = value
    return flat


def replace(settings: T, changes: Mapping[str, Any]) -> T:
    """Return a copy with other values of the named settings, whichever section they are in.

    Raises:
        InputError: A value is not allowed.
    """
    own, parts = dict(changes), {}
    for name, section in vars(settings).items():
        if is_section(section):
            inner = {key: own.pop(key) for key in flatten(section) if key in own}
            if inner:
                parts[name] = replace(section, inner)
    return dataclasses.replace(settings, **own, **parts)  # pyright: ignore


def from_mapping(default: T, values: Any, source: str) -> T:
    """Return a copy with the values of a nested mapping, such as one read from JSON.

    Args:
        default: The values of settings that the mapping does not have.
        values: The mapping, with one mapping per section.
        source: What an error message calls it, such as its path.

    Raises:
        InputError: It is no mapping, or a setting in it is unknown or has a value that is not allowed.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source} must hold a JSON object with settings, got {type(values).__name__}")
    known = vars(default)
    for name in values:
        if name not in known:
            raise InputError(f"{source} has the unknown setting {name!r}; the settings there are {', '.join(known)}")
    sections = {name: from_mapping(known[name], values[name], source) for name in values if is_section(known[name])}
    try:
        return dataclasses.replace(default, **values | sections)  # pyright: ignore
    except InputError as error:
        raise InputError(f"{error} (in {source})") from None
