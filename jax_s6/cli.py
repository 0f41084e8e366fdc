"""What every command shares: tyro's command line, one-sentence errors and exit statuses."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import tyro

from jax_s6.errors import InputError
from jax_s6.runs.signals import Stopped

T = TypeVar("T")


def parse(kind: type[T], *, prog: str, default: T | None = None, args: Sequence[str] | None = None) -> T:
    """Builds a dataclass from the command line, or exits with 2 and one sentence.

    Args:
        kind: The dataclass; the fields of nested dataclasses become flags without a prefix.
        prog: The command as the user types it, for the help text.
        default: The values that flags override; the dataclass's own defaults if None.
        args: The arguments; ``sys.argv[1:]`` if None.

    Raises:
        SystemExit: 0 after ``--help``, 2 after an unusable argument.
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


def refuse_empty(args: Sequence[str]) -> None:
    """Raises InputError if an argument is empty, as of a variable that is not set: a path would be the folder here."""
    for before, arg in zip(["", *args], args, strict=False):
        if not arg or re.fullmatch("--[a-z0-9-]+=", arg):
            flag = arg.rstrip("=") or (before if before.startswith("--") else "an argument")
            raise InputError(f"{flag} is empty: give a value, or leave it out")


def run(main: Callable[[], None]) -> None:
    """Runs a command.

    What the user got wrong ends in one sentence on standard error and exit status 2; a signal in how to go on, and 130
    or 143.
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
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str) -> NoReturn:
    """Prints one line on standard error and exits with 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _first_sentence(box: str) -> str:
    """Reduces tyro's framed error, from its title to the first rule, to one line, with the flag that it suggests."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    parts = re.split(r"\n?[^\n]*[─-]{8,}[^\n]*\n", text)
    sentence = " ".join(re.sub("[│|]", " ", parts[min(1, len(parts) - 1)]).split()).rstrip(".")
    meant = re.search(r"Perhaps you meant:\W*(--[a-z0-9-]+)", text)
    return f"{sentence}; did you mean {meant[1]}?" if meant else sentence
