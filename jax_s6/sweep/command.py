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
from jax_s6.config import RECIPES, to_json
from jax_s6.errors import InputError
from jax_s6.network import weights
from jax_s6.runs import checkpoints as checkpoint
from jax_s6.runs import folder as run_folder
from jax_s6.runs import processes as distributed
from jax_s6.runs import signals as stopping
from jax_s6.runs import tensorboard
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.runs.files import replacing, write_json, write_text
from jax_s6.runs.processes import DistributedConfig
from jax_s6.settings import replace
from jax_s6.sweep import estimate as sweep_estimate
from jax_s6.sweep import report as sweep_report
from jax_s6.sweep.flags import SweepFlags, from_flags, to_flags
from jax_s6.sweep.run import Listener, SweepResult, make_trainers, sweep
from jax_s6.training import plan as grids
from jax_s6.training.lanes import GroupTrainer
from jax_s6.training.plan import Plan

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
    out: Annotated[Path, tyro.conf.arg(metavar="DIR"), Doc("Folder for the results.")] = Path("runs/sweep")
    overwrite: Annotated[bool, Doc("Replace the sweep that is in the output folder.")] = False
    resume: Annotated[
        bool, Doc("Resume the unfinished sweep in the output folder, with the same flags; start one if there is none.")
    ] = False
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


class Console(Listener):
    """Shows a sweep on the terminal."""

    def __init__(self, plan: Plan):
        """Lays out the bar."""
        epochs = plan.columns["num_epochs"].sum()
        self.dashboard = sweep_report.Dashboard(int(epochs))

    def planned(self, trainers: Sequence[GroupTrainer], plan: Plan) -> None:
        """Prints the plan."""
        sweep_report.print_plan(trainers, plan)

    def lanes_done(self, count: int, images_per_second: float) -> None:
        """Advances the bar."""
        self.dashboard.lanes_done(count, images_per_second)

    def epoch_done(self, text: str) -> None:
        """Prints an epoch's line."""
        sweep_report.say(text)

    def said(self, text: str) -> None:
        """Prints it."""
        sweep_report.say(text)


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    args = list(sys.argv[1:] if args is None else args)
    base = cli.base_config(args)
    command = cli.parse(SweepCommand, prog=PROG, default=SweepCommand(run=to_flags(base)), args=args)
    config, grid = from_flags(command.run, base)
    plan = grids.make_plan(config, grid)
    if command.prune and not config.data.holdout:
        raise InputError("prune judges lanes on held-out images, but holdout is 0: give --holdout, such as 5000")
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    if command.processes.distributed:
        distributed.initialize(command.processes)
    # After initialize, with which JAX takes SIGTERM for itself.
    with stopping.watching(PROG, args) as stopper, distributed.ending_together():
        _run(command, plan, stopper)


def _run(command: SweepCommand, plan: Plan, stopper: stopping.Stopper) -> None:
    devices = _choose_devices(command)
    width = None if command.width == "auto" else command.width
    if not command.dry_run and not _needs_work(command):
        return
    dataset = data.load(plan.config.data)
    trainers = make_trainers(
        plan, dataset, devices, width, Listener(), command.prune
    )  # checks before anything is written
    if command.dry_run:
        if distributed.is_main():
            sweep_report.print_plan(trainers, plan)
            sweep_estimate.print_estimate(trainers, plan, command.prune)
        return
    listener = Console(plan) if distributed.is_main() else None
    with run_folder.claimed(command.out) if distributed.is_main() else contextlib.nullcontext():
        if not _needs_work(command):  # another may have been quicker
            return
        if distributed.is_main() and command.overwrite:
            (command.out / "summary.json").unlink(missing_ok=True)  # a folder with a summary is complete
        stopper.resumable()
        stopper.defer()
        with listener.dashboard if listener else contextlib.nullcontext():
            result = sweep(
                plan.config, plan.grid, dataset, devices=devices, width=width, prune=command.prune, out=command.out,
                resume=command.resume, checkpoints=command.checkpoints, listener=listener, stopper=stopper,
            )  # fmt: skip
        if distributed.is_main():
            if command.tensorboard:
                tensorboard.write_sweep(command.out, result.rows, result.history, list(plan.grid))
            write_sweep(command.out, plan, result)
            sweep_report.say(f"results are in {command.out}")


def _needs_work(command: SweepCommand) -> bool:
    """Whether there is something to do, said if not."""
    needed = run_folder.needs_work(command.out, resume=command.resume, overwrite=command.overwrite)
    if not needed and distributed.is_main():
        sweep_report.say(f"the sweep in {command.out} is complete: nothing to resume")
    return needed


def _choose_devices(command: SweepCommand) -> list[jax.Device] | None:
    """Takes the first of this process's devices.

    Raises:
        InputError: There are not that many.
    """
    count, found = command.devices, jax.devices()
    if count is None:
        return None
    if command.processes.distributed:
        raise InputError("devices cannot be chosen with --distributed, which uses those of all processes: drop one")
    if not 1 <= count <= len(found):
        raise InputError(f"devices must be >= 1 and <= {len(found)}, the {found[0].platform} devices here, got {count}")
    return found[:count]


def write_sweep(out: Path, plan: Plan, result: SweepResult) -> None:
    """Writes a sweep's files into its folder, the summary last, and removes what was kept to resume it."""
    sweep_report.write_csv(out / "sweep.csv", result.rows)
    sweep_report.write_csv(out / "history.csv", result.history)
    sweep_report.plot_sweep(out / "sweep.png", result.rows, result.history, plan.grid)
    best = result.summary["best_lane"]["lane"]  # predict, export and report take the folder for that lane's run
    write_text(out / "config.json", to_json(replace(plan.config, plan.settings(best))))
    with replacing(out / "params.safetensors") as part:
        weights.save(part, jax.tree.map(lambda x: x[best], result.variables), {"lane": str(best)})
    write_json(out / "summary.json", sweep_report.finite(result.summary))
    shutil.rmtree(out / checkpoint.FOLDER, ignore_errors=True)
