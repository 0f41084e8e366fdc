"""All commands under one name: ``python -m jax_s6`` lists them, ``jax-s6 train ...`` runs one."""

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from jax_s6 import cli
from jax_s6.errors import InputError

COMMANDS = {
    "train": "train one network on MNIST and judge it",
    "sweep": "train every combination of settings in few compiled programs",
    "predict": "name the digits in pictures",
    "export": "write a trained network as StableHLO, ONNX, safetensors or a PyTorch state dict",
    "report": "write one HTML page about runs and sweeps, on which one can draw",
    "backprop": "Part 1: backpropagation by hand, with its graph and spreadsheet",
}


def main(args: Sequence[str] | None = None) -> None:
    """Lists the commands, or runs the one that the first argument names."""
    args = list(sys.argv[1:] if args is None else args)
    if args and args[0].startswith("--tyro-"):
        write_completion(args)
    elif not args or args[0] in ("-h", "--help"):
        print("usage: jax-s6 COMMAND ...   (or python -m jax_s6.COMMAND ...)\n")
        for name, what in COMMANDS.items():
            print(f"  {name:10}{what}")
        print("\njax-s6 COMMAND --help has units, ranges and defaults; jax-s6 --tyro-write-completion bash FILE writes")
        print("a completion script. Exit status: 0 done, 2 something given cannot be used, 1 a fault of the program.")
    elif args[0] not in COMMANDS:
        raise InputError(f"command must be one of {', '.join(COMMANDS)}, got {args[0]!r}")
    else:
        sys.argv = [f"jax-s6 {args[0]}", *args[1:]]
        _module(args[0]).main()


def write_completion(args: Sequence[str]) -> None:
    """Lets tyro write the completion script of all commands: ``--tyro-write-completion bash FILE``, or zsh or tcsh."""
    from jax_s6.backprop import command as backprop
    from jax_s6.config import RECIPES
    from jax_s6.export import command as export
    from jax_s6.predict import command as predict
    from jax_s6.report import command as report_page
    from jax_s6.sweep import command as sweep_command
    from jax_s6.train import command as train

    sweep = sweep_command.SweepCommand(run=sweep_command.to_grid_config(RECIPES["best"]))
    kinds: dict[str, tuple[Any, Any]] = {
        "train": (train.TrainCommand, train.TrainCommand()),
        "sweep": (sweep_command.SweepCommand, sweep),
        "predict": (predict.PredictCommand, tyro.MISSING),
        "export": (export.ExportCommand, tyro.MISSING),
        "report": (report_page.ReportCommand, tyro.MISSING),
        "backprop": (backprop.BackpropConfig, backprop.BackpropConfig()),
    }
    union: Any = None
    for name, (kind, default) in kinds.items():
        given = {} if default is tyro.MISSING else {"default": default}
        each = Annotated[kind, tyro.conf.subcommand(name, prefix_name=False, **given)]
        union = each if union is None else union | each
    try:
        tyro.cli(union, prog="jax-s6", args=list(args), config=(tyro.conf.OmitArgPrefixes,))
    except (OSError, AssertionError, KeyError, IndexError):
        raise InputError(
            f"completion takes bash, zsh or tcsh and a file, got {' '.join(args[1:]) or 'neither'}"
        ) from None


def _module(command: str) -> Any:
    name = {"sweep": "sweep_command", "report": "report_page"}.get(command, command)
    return importlib.import_module(f"jax_s6.{name}")


def console() -> None:
    """Runs as the console script ``jax-s6``."""
    cli.run(main)


if __name__ == "__main__":
    console()
