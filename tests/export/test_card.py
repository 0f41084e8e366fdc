"""The command on the card beside a file trains the network in the same way."""

import dataclasses

from jax_s6.config import RECIPES
from jax_s6.export.card import command_of
from jax_s6.train import command as train


def test_the_command_on_the_card_has_the_runs_settings():
    s6 = RECIPES["s6"]
    config = dataclasses.replace(s6, seed=3, optimizer=dataclasses.replace(s6.optimizer, nesterov=True))
    assert command_of(config) == "python -m jax_s6.train --recipe s6 --seed 3 --nesterov"
    assert train.parse_command(command_of(config).split()[3:]).run == config
