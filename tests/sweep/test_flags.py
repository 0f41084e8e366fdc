"""The sweep's flags: train's settings, most with several values, and when the default grid applies."""

import pytest

from jax_s6 import cli
from jax_s6.config import RECIPES
from jax_s6.sweep.command import PROG, SweepCommand
from jax_s6.sweep.flags import from_flags, to_flags
from jax_s6.training.plan import DEFAULT_GRID


def parse(args, base=RECIPES["best"]):
    command = cli.parse(SweepCommand, prog=PROG, default=SweepCommand(run=to_flags(base)), args=args)
    return from_flags(command.run, base)


def test_command_line_is_trains_with_several_values():
    args = "--optimizer sgd adamw --seed 0 1 --learning-rate 0.5 --no-nesterov --holdout 7 --momentum 0.8 0.9".split()
    config, grid = parse(args)
    assert grid == {"optimizer": ("sgd", "adamw"), "momentum": (0.8, 0.9), "seed": (0, 1)}
    assert list(grid)[-1] == "seed", "seeds of one setting are side by side"
    assert config.optimizer.learning_rate == 0.5 and not config.optimizer.nesterov and config.data.holdout == 7
    assert parse(["--recipe", "s6", "--learning-rate", "0.01"], RECIPES["s6"]) == (RECIPES["s6"], {})


@pytest.mark.parametrize(
    ("args", "grid"),
    [
        ("", DEFAULT_GRID),
        ("--momentum 0.8 --batch-size 64 --no-nesterov --seed 3", DEFAULT_GRID),
        ("--seed 0 1 2", {"seed": (0, 1, 2)}),
        ("--optimizer sgd adamw", {"optimizer": ("sgd", "adamw")}),
        ("--learning-rate 0.3 0.4", {"learning_rate": (0.3, 0.4)}),
        ("--learning-rate 0.3", {}),
        ("--learning-rate 0.15", {}),  # the recipe's own rate, given
        ("--learning_rate=0.15", {}),
        ("--learning-rate 0.3 --seed 0 1", {"seed": (0, 1)}),
    ],
)
def test_the_default_grid_is_for_command_lines_that_name_no_rate_and_vary_nothing(args, grid):
    config, got = parse(args.split())
    assert got == grid
    assert config.optimizer.learning_rate == (0.3 if "rate 0.3" in args and "0.4" not in args else 0.15)


def test_what_is_not_given_is_the_recipes_or_the_files():
    for recipe in RECIPES.values():
        assert parse([], recipe) == (recipe, DEFAULT_GRID)


def test_help_explains_every_setting(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stop.value.code == 0
    rates = "Without this flag, and if no other has several values, the sweep is over 0.1 0.2 0.5 0.8 1.0 2.0."
    for part in (
        "--learning-rate [FLOAT [FLOAT ...]] Peak learning rate. Allowed: > 0 and <= 1000000. " + rates,
        "Number of images per step",
        "The optimizer and its learning-rate schedule.",
        "--prune",
        "--width",
    ):
        assert part in text
    assert "pyright" not in text
