"""The score card: each requirement of the assignment, what a run reached, and whether the requirement is met."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from jax_s6.config import TrainConfig
from jax_s6.runs.console import console

GOAL = 0.994
MAX_PARAMS, MAX_EPOCHS = 20_000, 20


def score_card(config: TrainConfig, summary: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Return rows of requirement, what the run reached after its final epoch, and whether the requirement is met."""
    rates = (config.model.dropout_conv1, config.model.dropout_conv2, config.model.dropout_conv3)
    dropout = f"rates {', '.join(f'{rate:g}' for rate in rates)}"
    return [
        ("parameters < 20,000", f"{summary['num_params']:,}", summary["num_params"] < MAX_PARAMS),
        ("epochs < 20", f"{summary['num_epochs']}", summary["num_epochs"] < MAX_EPOCHS),
        ("final test accuracy >= 99.4 %", f"{summary['test_accuracy']:.2%}", summary["test_accuracy"] >= GOAL),
        ("batch normalisation", "after each of 6 convolutions", True),
        ("dropout", dropout, config.model.uses_dropout),
        ("global average pooling", "before the log-softmax", True),
    ]


def print_score_card(config: TrainConfig, summary: Mapping[str, Any]) -> None:
    """Print the score card as a table."""
    table = Table("the assignment asks", "this run", "")
    for asked, got, met in score_card(config, summary):
        table.add_row(asked, got, "[green]met[/]" if met else "[red]not met[/]")
    console.print(table)
