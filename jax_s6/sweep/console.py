"""What a sweep prints: its plan, one line per epoch of each group, and a table of the best lanes."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from jax_s6.runs.console import ProgressBar, console, say
from jax_s6.runs.engine import Run
from jax_s6.training.plan import DEFAULT_GRID, Plan

MAX_ROWS = 20
"""Largest number of rows of the table."""


class SweepLines(ProgressBar):
    """A progress bar in a terminal, and one line per epoch and group in any output."""

    def started(self, run: Run) -> None:
        """Print the plan."""
        super().started(run)
        print_plan(run)

    def epoch_done(self, run: Run, number: int, num_lanes: int, images_per_second: float) -> None:
        """Print the epoch's line."""
        say(describe_epoch(run, number, num_lanes, images_per_second))


def describe_epoch(run: Run, number: int, num_lanes: int, images_per_second: float) -> str:
    """Return a line about an epoch of a group: its number, its speed and the best lane of the sweep so far."""
    trainer, records, best = run.trainers[number], run.records, run.records.best_lane()
    group = f"group {number + 1}/{len(run.trainers)}  " if len(run.trainers) > 1 else ""
    settings = run.plan.settings(best)
    about = ", ".join(f"{name} {settings[name]}" for name in run.plan.grid) or "the only one"
    score = records.history(best)[-1][records.score]
    return (
        f"{group}epoch {trainer.epoch:>3}/{trainer.group.config.num_epochs}  {num_lanes} lanes"
        f"  {images_per_second:,.0f} model-images/s  best lane {best} ({about}):"
        f" {records.score.replace('_', ' ')} {score:.2%}"
    )


def print_plan(run: Run) -> None:
    """Print the lanes, the groups, and where they run."""
    plan, trainers = run.plan, run.trainers
    groups = "1 group, compiled once" if len(trainers) == 1 else f"{len(trainers)} groups, each compiled once"
    say(f"{_count(plan.num_lanes, 'lane')} in {groups}{_origin(plan)}")
    for name, values in plan.grid.items():
        say(f"  {name}: {', '.join(map(str, values[:12]))}{', ...' if len(values) > 12 else ''}")
    for number, trainer in enumerate(trainers, start=1):
        at, config = trainer.arrangement, trainer.group.config
        kind = "CPU" if at.devices[0].platform == "cpu" else at.devices[0].device_kind
        say(
            f"  group {number}: {_count(len(trainer.group.lanes), 'lane')}, {_count(config.num_epochs, 'epoch')},"
            f" batch {config.batch_size}, {config.optimizer.optimizer}, {config.optimizer.schedule}"
            f"{', augmentation' * config.augment.enabled}{', dropout' * config.model.uses_dropout};"
            f" on {_count(len(at.devices), f'{kind} device')}, {_count(at.width, 'lane')} at once on each"
            f"{f', each batch split over {trainer.batch_parts}' if trainer.batch_parts > 1 else ''}"
        )


def _origin(plan: Plan) -> str:
    return "; default grid: the assignment's six learning rates" if plan.grid == DEFAULT_GRID else ""


def print_best(rows: Sequence[Mapping[str, Any]], grid: Mapping[str, Sequence[Any]], score: str) -> None:
    """Print a table of the best settings, with means over seeds, and which images chose the best lane.

    Args:
        rows: One row per lane, as in ``sweep.csv``.
        grid: The values of each setting that was varied.
        score: The metric that chose the best lane.
    """
    names = [name for name in grid if name != "seed"]
    lanes: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        lanes.setdefault(tuple(row[name] for name in names), []).append(row)
    finished = {
        key: [row for row in group if row["diverged_at"] is None and not row.get("pruned_at")]
        for key, group in lanes.items()
    }
    means = {key: statistics.mean(row[score] for row in group) for key, group in finished.items() if group}
    best_first = sorted(lanes, key=lambda key: -means.get(key, -1.0))
    table = Table(
        *(name.replace("_", " ") for name in names), score.replace("_", " "), "deviation", "n", "diverged or dropped"
    )
    for key in best_first[:MAX_ROWS]:
        scores = [row[score] for row in finished[key]]
        deviation = f"{statistics.stdev(scores):.2%}" if len(scores) > 1 else ""
        mean = f"{means[key]:.2%}" if scores else ""
        lost = len(lanes[key]) - len(scores)
        table.add_row(*map(str, key), mean, deviation, str(len(scores)), str(lost or ""))
    console.print(table)
    if len(best_first) > MAX_ROWS:
        say(f"the best {MAX_ROWS} of {len(best_first)}; sweep.csv has all")
    held_out = score == "validation_accuracy"
    say(f"the best lane was chosen on the {'held-out' if held_out else 'test'} images")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
