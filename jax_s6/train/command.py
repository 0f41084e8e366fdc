"""The command ``python -m jax_s6.train``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from typing_extensions import Doc

from jax_s6 import backend, cli, data
from jax_s6.config import RECIPES, TrainConfig
from jax_s6.predict import Model
from jax_s6.runs import tensorboard
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.runs.console import ProgressBar, print_layers, say
from jax_s6.runs.engine import Run, train_in_folder
from jax_s6.runs.folder import OutputConfig, needs_work, require_same
from jax_s6.runs.score_card import print_score_card
from jax_s6.runs.signals import Stopper, watching
from jax_s6.train.run import make_result, make_run, write_run

PROG = "python -m jax_s6.train"


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train the network of 11,952 parameters on MNIST, and evaluate it on the 10,000 test images."""

    run: Annotated[TrainConfig, tyro.conf.arg(name=""), Doc("The settings.")] = field(
        default_factory=lambda: RECIPES["best"]
    )
    config: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE"), Doc("Start from the settings in this config.json of a run.")
    ] = None
    output: Annotated[OutputConfig, Doc("Where the results go.")] = field(default_factory=OutputConfig)
    checkpoints: Annotated[CheckpointConfig, Doc("When checkpoints are written, and how many are kept.")] = field(
        default_factory=CheckpointConfig
    )
    check_nans: Annotated[
        bool, Doc("Stop after an epoch whose loss is not finite, and report the first step and tensor that were not.")
    ] = False
    devices: Annotated[
        int | None,
        Doc("Number of devices that share each batch, a divisor of the batch size. Chosen by platform if not given."),
    ] = None
    tensorboard: Annotated[
        bool, Doc("Write metrics, first-layer filters and wrong predictions for TensorBoard into the output folder.")
    ] = False


class EpochLines(ProgressBar):
    """A progress bar in a terminal, and one line per epoch in any output."""

    def started(self, run: Run) -> None:
        """Print the layers."""
        print_layers()
        super().started(run)

    def epoch_done(self, run: Run, number: int, num_lanes: int, images_per_second: float) -> None:
        """Print the epoch's line."""
        row, seconds = run.records.history(0)[-1], run.trainers[0].epoch_seconds[-1]
        held_out = f"  validation {row['validation_accuracy']:.2%}" if "validation_accuracy" in row else ""
        say(
            f"epoch {row['epoch']:>3}  train loss {row['train_loss']:.4f}  train {row['train_accuracy']:.2%}{held_out}"
            f"  test loss {row['test_loss']:.4f}  test {row['test_accuracy']:.2%}  {seconds:.1f} s"
            f"  {images_per_second:,.0f} images/s"
        )


def parse_command(args: Sequence[str] | None = None) -> TrainCommand:
    """Read the command line: flags change the recipe, or the file, that ``--recipe`` or ``--config`` names."""
    args = list(sys.argv[1:] if args is None else args)
    return cli.parse(TrainCommand, prog=PROG, default=TrainCommand(run=cli.base_config(args)), args=args)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = list(sys.argv[1:] if args is None else args)
    command = parse_command(args)
    out = command.output.out or Path("runs") / f"{command.run.recipe}-{command.run.seed}"
    needs_work(out, command.output)
    with watching(PROG, args) as stopper:
        _run(command, out, stopper)


def _run(command: TrainCommand, out: Path, stopper: Stopper) -> None:
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    dataset = data.load(command.run.data)
    run = make_run(command.run, dataset, command.devices)

    def write() -> None:
        result = make_result(run)
        if command.tensorboard:
            probabilities = Model(result.variables).predict_proba(dataset.test_images)
            tensorboard.write_run(out, result.history, result.variables, dataset, probabilities)
        write_run(out, command.run, result)

    with EpochLines("epochs") as bar:
        settings = (out, command.output, command.checkpoints)
        trained = train_in_folder(run, *settings, bar, stopper, write, check_nans=command.check_nans)
    if not trained:
        require_same(out, command.run)
        return say(f"the run in {out} is complete: nothing to resume")
    print_score_card(command.run, make_result(run).summary)
    say(f"results are in {out}")
