"""All commands under one name: ``python -m jax_s6`` lists them, and ``jax-s6 train ...`` runs one."""

import importlib
import sys
from collections.abc import Sequence

import tyro

from jax_s6 import cli
from jax_s6.errors import InputError

COMMANDS = {
    "train": "train a network on MNIST and evaluate it",
    "sweep": "train a network for every combination of settings",
    "predict": "recognise the digits in pictures",
    "export": "write a trained network as StableHLO, ONNX, safetensors or a PyTorch state dict",
    "report": "write an HTML page about runs and sweeps, on which visitors can draw digits",
    "backprop": "Part 1: backpropagation by hand, with its error graph and spreadsheet",
}


def main(args: Sequence[str] | None = None) -> None:
    """List the commands, or runs the one that the first argument names."""
    args = list(sys.argv[1:] if args is None else args)
    if args and args[0] in ("--tyro-write-completion", "--tyro-print-completion"):
        write_completion(args)
    elif not args or args[0] in ("-h", "--help"):
        print("usage: jax-s6 COMMAND ...   (or python -m jax_s6.COMMAND ...)\n")
        for name, purpose in COMMANDS.items():
            print(f"  {name:10}{purpose}")
        print("\njax-s6 COMMAND --help describes the command's flags, with units, allowed values and defaults.")
        print("jax-s6 --tyro-write-completion bash FILE writes a completion script for the shell (or zsh).")
        print("Exit status: 0 success, 1 internal error, 2 unusable input, 130 or 143 stopped by a signal.")
    elif args[0] not in COMMANDS:
        raise InputError(f"command must be one of {', '.join(COMMANDS)}, got {args[0]!r}")
    else:
        sys.argv = [f"jax-s6 {args[0]}", *args[1:]]
        importlib.import_module(f"jax_s6.{args[0]}.command").main()


def write_completion(args: Sequence[str]) -> None:
    """Write a completion script for all commands: ``--tyro-write-completion bash FILE``, or zsh."""
    from jax_s6.backprop.command import BackpropConfig
    from jax_s6.export.command import ExportCommand
    from jax_s6.predict.command import PredictCommand
    from jax_s6.report.command import ReportCommand
    from jax_s6.sweep.command import SweepCommand
    from jax_s6.train.command import TrainCommand

    if args[1:2] not in (["bash"], ["zsh"]) or (args[0] == "--tyro-write-completion" and len(args) != 3):
        raise InputError(f"completion takes bash or zsh, and a file, got {' '.join(args[1:]) or 'neither'}")
    kinds = (TrainCommand, SweepCommand, PredictCommand, ExportCommand, ReportCommand, BackpropConfig)
    commands = dict(zip(COMMANDS, kinds, strict=True))
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="jax-s6", args=args, config=(tyro.conf.OmitArgPrefixes,))
    except OSError as error:
        raise InputError(f"the completion script cannot be written ({error}): give another file") from None


def console() -> None:
    """Run as the console script ``jax-s6``."""
    cli.run(main)


if __name__ == "__main__":
    console()
