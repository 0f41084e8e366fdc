"""What the commands share: reading the command line with tyro, errors in one sentence, and exit statuses."""

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import tyro

from jax_s6.config import RECIPES, TrainConfig, from_json
from jax_s6.errors import InputError, Stopped

T = TypeVar("T")


def parse(kind: type[T], *, prog: str, default: T | None = None, args: Sequence[str] | None = None) -> T:
    """Read the command line into a dataclass, or print one sentence and exit with status 2.

    Args:
        kind: The dataclass. Each field, also of nested dataclasses, is a flag.
        prog: The command as the user types it, for the help text.
        default: The values of flags that are not given; those of the dataclass if None.
        args: The arguments; ``sys.argv[1:]`` if None.

    Raises:
        SystemExit: Status 0 after ``--help``, 2 after an argument that cannot be used.
    """
    errors = io.StringIO()
    try:
        refuse_empty(sys.argv[1:] if args is None else args)
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                kind,
                prog=prog,
                default=tyro.MISSING_NONPROP if default is None else default,
                args=args,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except InputError as error:
        fail(str(error))
    except SystemExit as stop:
        if stop.code == 0:
            raise
        fail(f"{_first_sentence(errors.getvalue())} (see {prog} --help)")


def base_config(args: Sequence[str]) -> TrainConfig:
    """Return the settings that the other flags change: those of the recipe or the file that the arguments name.

    Raises:
        InputError: The file cannot be read, or both are named.
    """
    refuse_empty(args)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", nargs="?")
    parser.add_argument("--config", nargs="?")
    named, _ = parser.parse_known_args(args)
    if named.config is None:
        return RECIPES.get(named.recipe, RECIPES["best"])  # tyro reports a recipe that does not exist
    if named.recipe is not None:
        raise InputError("recipe and config exclude each other: give --config FILE alone, which names its recipe")
    return read_config(Path(named.config))


def read_config(path: Path) -> TrainConfig:
    """Read a run's ``config.json``.

    Raises:
        InputError: It cannot be read, or does not hold settings.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} cannot be read ({error}): give a config.json that a run wrote") from None
    return from_json(text, f"config {path}")


def refuse_empty(args: Sequence[str]) -> None:
    """Raise InputError for an empty argument, as of an unset shell variable: a path would be the current folder."""
    for before, arg in zip(["", *args], args, strict=False):
        if not arg or re.fullmatch("--[a-z0-9-]+=", arg):
            flag = arg.rstrip("=") or (before if before.startswith("--") else "an argument")
            raise InputError(f"{flag} is empty: give a value, or leave it out")


def run(main: Callable[[], None]) -> None:
    """Run a command and set its exit status.

    Input that cannot be used ends in one sentence on standard error and status 2; a signal in the command that resumes
    the run and status 130 or 143.
    """
    try:
        main()
    except InputError as error:
        fail(str(error))
    except Stopped as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.status) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # the program that reads the output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str) -> NoReturn:
    """Print one line on standard error and exit with status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _first_sentence(box: str) -> str:
    """Return the first paragraph of tyro's framed error as one line, with the flag that it suggests."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    parts = re.split(r"\n?[^\n]*[─-]{8,}[^\n]*\n", text)
    sentence = " ".join(re.sub("[│|]", " ", parts[min(1, len(parts) - 1)]).split()).rstrip(".")
    meant = re.search(r"Perhaps you meant:\W*(--[a-z0-9-]+)", text)
    return f"{sentence}; did you mean {meant[1]}?" if meant else sentence
