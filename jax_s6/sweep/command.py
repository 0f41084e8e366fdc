"""The command ``python -m jax_s6.sweep``: train's flags, of which most take several values."""

import contextlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from typing_extensions import Doc

from jax_s6 import backend, cli, data
from jax_s6.config import RECIPES
from jax_s6.errors import InputError
from jax_s6.runs import processes, tensorboard
from jax_s6.runs.checkpoints import FOLDER, CheckpointConfig
from jax_s6.runs.console import say
from jax_s6.runs.engine import Listener, Run, require_holdout, train_in_folder
from jax_s6.runs.folder import OutputConfig, needs_work, require_same
from jax_s6.runs.processes import DistributedConfig
from jax_s6.runs.signals import Stopper, watching
from jax_s6.sweep.console import SweepLines, print_best, print_plan
from jax_s6.sweep.estimate import print_estimate
from jax_s6.sweep.flags import SweepFlags, from_flags, to_flags
from jax_s6.sweep.run import make_result, write_sweep
from jax_s6.training.plan import Plan, make_plan

PROG = "python -m jax_s6.sweep"


@dataclass(frozen=True, kw_only=True)
class SweepCommand:
    """Train a network for every combination of the given settings.

    Most settings take several values: --learning-rate 0.1 0.5 --seed 0 1 2 makes a grid of 6 runs, which are called
    lanes. If no setting has several values, the grid is the assignment's six learning rates. Lanes are compiled
    together unless they differ in batch size, number of epochs, optimizer, schedule or the like.
    """

    run: Annotated[SweepFlags, tyro.conf.arg(name=""), Doc("The settings.")] = field(  # pyright: ignore[reportInvalidTypeForm]
        default_factory=lambda: to_flags(RECIPES["best"])
    )
    config: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE"), Doc("Start from the settings in this config.json of a run.")
    ] = None
    output: Annotated[OutputConfig, Doc("Where the results go.")] = field(default_factory=OutputConfig)
    checkpoints: Annotated[CheckpointConfig, Doc("When checkpoints are written, and how many are kept.")] = field(
        default_factory=CheckpointConfig
    )
    prune: Annotated[
        bool, Doc("Stop the worse half of the lanes after epochs 1, 2, 4, ..., by accuracy on the --holdout images.")
    ] = False
    tensorboard: Annotated[
        bool, Doc("Write each lane's metrics and hyper-parameters for TensorBoard into the output folder.")
    ] = False
    dry_run: Annotated[
        bool, Doc("Only print the lanes, groups and devices, and an estimate of memory and time; write nothing.")
    ] = False
    width: Annotated[
        Literal["auto"] | int,
        Doc("Largest number of lanes at once on a device. auto: 1 on CPU; what fits in memory on accelerators."),
    ] = "auto"
    devices: Annotated[
        int | None,
        Doc("Number of devices; all if not given. If there are fewer lanes than devices, they share batches, too."),
    ] = None
    processes: Annotated[DistributedConfig, Doc("How several processes share the sweep.")] = field(
        default_factory=DistributedConfig
    )


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = list(sys.argv[1:] if args is None else args)
    base = cli.base_config(args)
    command = cli.parse(SweepCommand, prog=PROG, default=SweepCommand(run=to_flags(base)), args=args)
    plan = make_plan(*from_flags(command.run, base))
    require_holdout(plan, command.prune)
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    if command.processes.distributed:
        processes.initialize(command.processes)
    # After initialize, with which JAX takes SIGTERM for itself.
    with watching(PROG, args) as stopper, processes.ending_together():
        _run(command, plan, stopper)


def _run(command: SweepCommand, plan: Plan, stopper: Stopper) -> None:
    out, main = command.output.out or Path("runs/sweep"), processes.is_main()
    finished = f"the sweep in {out} is complete: nothing to resume"
    devices = _choose_devices(command)
    width = None if command.width == "auto" else command.width
    if not command.dry_run and not needs_work(out, command.output):
        require_same(out, plan.config, plan.grid, command.prune)
        return say(finished) if main else None
    run = Run(plan, data.load(plan.config.data), devices=devices, width=width, prune=command.prune)
    if command.dry_run:
        if main:
            print_plan(run)
            print_estimate(run)
        return None

    def write() -> None:
        result = make_result(run)
        if command.tensorboard:
            tensorboard.write_sweep(out, result.rows, result.history, list(plan.grid))
        write_sweep(out, run, result)
        shutil.rmtree(out / FOLDER, ignore_errors=True)

    bar = SweepLines("lane epochs") if main else None
    with bar or contextlib.nullcontext():
        trained = train_in_folder(run, out, command.output, command.checkpoints, bar or Listener(), stopper, write)
    if not main:
        return None
    if not trained:
        return say(finished)
    print_best(make_result(run).rows, plan.grid, run.records.score)
    return say(f"results are in {out}")


def _choose_devices(command: SweepCommand) -> list[jax.Device] | None:
    """Return the first of this process's devices, or None for all of them."""
    if command.devices is not None and command.processes.distributed:
        raise InputError("devices cannot be chosen with --distributed, which uses those of all processes: drop one")
    return None if command.devices is None else backend.first_devices(command.devices)
