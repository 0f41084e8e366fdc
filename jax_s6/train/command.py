"""Train one network: ``python -m jax_s6.train``."""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from typing_extensions import Doc

from jax_s6 import backend, cli, data
from jax_s6.config import RECIPES, Hyperparameters, TrainConfig, to_json
from jax_s6.errors import InputError
from jax_s6.network import net as model
from jax_s6.network import weights
from jax_s6.predict import Model
from jax_s6.runs import checkpoints as checkpoint
from jax_s6.runs import folder as run_folder
from jax_s6.runs import signals as stopping
from jax_s6.runs import tensorboard
from jax_s6.runs.checkpoints import CheckpointConfig
from jax_s6.runs.console import Dashboard, console, print_layers
from jax_s6.runs.environment import environment
from jax_s6.runs.files import replacing, write_json, write_json_lines, write_text
from jax_s6.runs.identity import identity
from jax_s6.runs.score_card import print_score_card
from jax_s6.train.curves import plot_curves
from jax_s6.train.state import Keeper
from jax_s6.training import nans
from jax_s6.training.epoch import Split, means
from jax_s6.training.state import Program, TrainState
from jax_s6.training.trainer import Trainer, make_mesh

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
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR"), Doc("Folder for the results; runs/<recipe>-<seed> if not given.")
    ] = None
    overwrite: Annotated[bool, Doc("Replace the run that is in the output folder.")] = False
    resume: Annotated[
        bool, Doc("Resume the unfinished run in the output folder, with the same settings; start one if there is none.")
    ] = False
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


class TrainResult(NamedTuple):
    """A finished run.

    Attributes:
        variables: ``{"params": ..., "batch_stats": ...}``, NumPy arrays.
        history: A row an epoch: epoch (from 1), learning_rate, losses, accuracies, seconds.
        summary: What ``summary.json`` holds.
    """

    variables: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]


def parse_command(args: Sequence[str] | None = None) -> TrainCommand:
    """Reads the command line: flags change the recipe, or the file, that ``--recipe`` or ``--config`` names."""
    args = list(sys.argv[1:] if args is None else args)
    return cli.parse(TrainCommand, prog=PROG, default=TrainCommand(run=cli.base_config(args)), args=args)


class Prepared(NamedTuple):
    """A run's programs and its data on the devices: training, test, and validation images or None."""

    trainer: Trainer
    splits: tuple[Split, Split, Split | None]


def prepare(config: TrainConfig, dataset: data.Dataset, num_devices: int | None = None) -> Prepared:
    """Checks the settings against the data and the devices, and places the data.

    Args:
        config: The settings.
        dataset: The images.
        num_devices: Devices that share each batch; None for what suits the platform.

    Raises:
        InputError: The holdout or the batch is larger than the data, or the devices do not fit.
    """
    images, labels, *held_out = data.split_holdout(dataset, config.data.holdout)
    if config.batch_size > len(labels):
        raise InputError(f"batch_size must be <= {len(labels)}, the number of training images, got {config.batch_size}")
    devices = backend.batch_devices(config.batch_size, num_devices)
    trainer = Trainer(Program(config, len(labels), dataset.num_classes), make_mesh(devices))
    train = Split(*trainer.put_shared((images, labels)))
    test = Split(*trainer.put_shared((dataset.test_images, dataset.test_labels)))
    validation = Split(*trainer.put_shared(held_out)) if config.data.holdout else None
    return Prepared(trainer, (train, test, validation))


def compile_run(config: TrainConfig, prepared: Prepared) -> tuple[Hyperparameters, TrainState, Callable[..., Any]]:
    """Returns the only lane's numbers, its initial state, and the compiled epoch."""
    trainer, splits = prepared
    hyper = trainer.put_lanes(Hyperparameters(*([value] for value in Hyperparameters.of(config))))
    compiled = trainer.compile(hyper, splits)
    return hyper, compiled.create(hyper), compiled.epoch


def train(
    config: TrainConfig,
    dataset: data.Dataset,
    prepared: Prepared | None = None,
    *,
    on_epoch: Callable[[dict[str, Any], float], None] = lambda row, rate: None,
    keeper: Keeper | None = None,
    check_nans: bool = False,
) -> TrainResult:
    """Trains one network.

    Args:
        config: The settings.
        dataset: The images; ``config.data.holdout`` of the training images are kept for validation.
        prepared: What ``prepare`` made of them; made here, for the devices that suit the platform, if None.
        on_epoch: Called after each epoch with its row of the history and its images per second.
        keeper: Keeps checkpoints, and knows where to go on; None for neither.
        check_nans: Whether to end at the first epoch whose loss is not finite; a lane freezes there otherwise.

    Returns:
        The run. Accuracies are fractions of all images of a split; ``train_*`` are over the epoch, as it trained.

    Raises:
        InputError: The settings do not fit the data, a checkpoint cannot be written, or ``check_nans`` found something.
    """
    prepared, keeper = prepared or prepare(config, dataset), keeper or Keeper()
    trainer, splits = prepared
    start = time.perf_counter()
    hyper, state, epoch_fn = compile_run(config, prepared)
    compile_seconds = time.perf_counter() - start
    state, history = keeper.restore(trainer, state)
    images_per_epoch = trainer.program.steps_per_epoch * config.batch_size
    with keeper:
        for epoch in range(len(history), config.num_epochs):
            before = jax.device_get(state) if check_nans else None
            start = time.perf_counter()
            state, metrics = epoch_fn(hyper, state, jnp.int32(epoch), *splits)
            metrics = jax.device_get(metrics)
            seconds = time.perf_counter() - start
            if before is not None:
                nans.check_epoch(trainer.program, hyper, before, splits[0], epoch, metrics)
            row = {name: float(values[0]) for name, values in means(metrics).items()}
            history.append({"epoch": epoch + 1, **row, "seconds": seconds})
            on_epoch(history[-1], images_per_epoch / seconds)
            keeper.epoch_done(state, history, config.num_epochs)
    variables = jax.tree.map(lambda x: np.asarray(x[0]), {"params": state.params, "batch_stats": state.batch_stats})
    diverged_at = int(state.diverged_at[0])
    summary = _summary(config, dataset, history, compile_seconds, images_per_epoch, diverged_at)
    return TrainResult(variables, history, summary)


def _summary(
    config: TrainConfig,
    dataset: data.Dataset,
    history: list[dict[str, Any]],
    compile_seconds: float,
    images_per_epoch: int,
    diverged_at: int,
) -> dict[str, Any]:
    """Collects what ``summary.json`` holds."""
    last, best = history[-1], max(history, key=lambda row: row["test_accuracy"])
    train_seconds = sum(row["seconds"] for row in history)
    return {
        "recipe": config.recipe,
        "seed": config.seed,
        "num_params": model.NUM_PARAMS,
        "num_epochs": config.num_epochs,
        "batch_size": config.batch_size,
        **{name: value for name, value in last.items() if name not in ("epoch", "seconds")},
        "best_test_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        "diverged_at": diverged_at if diverged_at >= 0 else None,
        "compile_seconds": compile_seconds,
        "train_seconds": train_seconds,
        "images_per_second": images_per_epoch * config.num_epochs / train_seconds,
        "data_checksum": dataset.checksum,
        **environment(),
        "config": dataclasses.asdict(config),
    }


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    args = list(sys.argv[1:] if args is None else args)
    command = parse_command(args)
    out = command.out or Path("runs") / f"{command.run.recipe}-{command.run.seed}"
    run_folder.needs_work(out, resume=command.resume, overwrite=command.overwrite)
    with stopping.watching(PROG, args) as stopper:
        _run(command, out, stopper)


def _run(command: TrainCommand, out: Path, stopper: stopping.Stopper) -> None:
    config = command.run
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    dataset = data.load(config.data)
    prepared = prepare(config, dataset, command.devices)
    about = identity(dataclasses.asdict(config), dataset.checksum)
    store = checkpoint.Store(out / checkpoint.FOLDER, about, command.checkpoints.keep)
    with run_folder.claimed(out):
        kept = store.load() if command.resume else None
        if not run_folder.needs_work(out, resume=command.resume, overwrite=command.overwrite):
            return console.print(f"the run in {out} is complete: nothing to resume", soft_wrap=True)
        if kept is None:
            (out / "summary.json").unlink(missing_ok=True)  # a folder with a summary is complete
            store.clear()
        stopper.resumable()
        print_layers()
        done = kept.epoch if kept else 0
        with Dashboard(config.num_epochs, done) as dashboard:
            keeper = Keeper(store, command.checkpoints, kept, stopper)
            on_epoch, check_nans = dashboard.epoch_done, command.check_nans
            result = train(config, dataset, prepared, on_epoch=on_epoch, keeper=keeper, check_nans=check_nans)
        if command.tensorboard:
            probabilities = Model(result.variables).predict_proba(dataset.test_images)
            tensorboard.write_run(out, result.history, result.variables, dataset, probabilities)
        write_run(out, config, result)
    print_score_card(config, result.summary)
    console.print(f"results are in {out}", soft_wrap=True)


def write_run(out: Path, config: TrainConfig, result: TrainResult) -> None:
    """Writes a run's files into its folder, the summary last: a folder with a summary is complete."""
    write_text(out / "config.json", to_json(config))
    write_json_lines(out / "metrics.jsonl", result.history)
    plot_curves(out / "curves.png", result.history, f"recipe {config.recipe}, seed {config.seed}")
    with replacing(out / "params.safetensors") as part:
        weights.save(part, result.variables, {"recipe": config.recipe, "seed": str(config.seed)})
    write_json(out / "summary.json", result.summary)
