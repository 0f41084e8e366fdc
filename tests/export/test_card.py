"""The card beside a file tells how the network was trained, and its command trains the same way."""

import dataclasses
import json

from jax_s6.config import RECIPES
from jax_s6.export.card import card_path, command_of, read_provenance
from jax_s6.train import command as train


def test_cards_tell_how_the_network_was_trained_and_pass_it_on(exported):
    card = json.loads(card_path(exported / "onnx").read_text())
    assert card["format"] == "onnx" and card["verified"]["images"] == 10_000
    assert card["verified"]["largest_difference"] <= 1e-5
    assert card["provenance"]["command"].startswith("python -m jax_s6.train")
    assert card["input"].startswith("images: uint8 [batch, 28, 28, 1]")
    assert "[batch, 1, 28, 28]" in json.loads(card_path(exported / "torch").read_text())["input"]
    assert read_provenance(exported / "safetensors") == card["provenance"]


def test_the_command_on_the_card_has_the_runs_settings():
    s6 = RECIPES["s6"]
    config = dataclasses.replace(s6, seed=3, optimizer=dataclasses.replace(s6.optimizer, nesterov=True))
    assert command_of(config) == "python -m jax_s6.train --recipe s6 --seed 3 --nesterov"
    assert train.parse_command(command_of(config).split()[3:]).run == config
