"""Where weights came from, and the JSON card that goes with every exported file."""

import dataclasses
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from jax_s6 import config as configs
from jax_s6.config import RECIPES, TrainConfig
from jax_s6.errors import InputError

INPUT = "images: uint8 [batch, 28, 28, 1], 0 to 255, light on dark as MNIST"
TORCH_INPUT = (
    "images: float32 [batch, 1, 28, 28], (x / 255 - 0.1307) / 0.3081 of x from 0 to 255, light on dark as MNIST"
)
OUTPUT = "logits: float32 [batch, 16], of which labels use the first 10; softmax gives probabilities"
_KEPT = ("recipe", "seed", "num_params", "num_epochs", "test_accuracy", "test_loss", "data_checksum", "versions")


def card_path(file: Path) -> Path:
    """Returns the card's place, beside its file: ``model.onnx.json``."""
    return file.with_name(f"{file.name}.json")


def read_provenance(weights_file: Path) -> dict[str, Any]:
    """Finds out what made some weights.

    Args:
        weights_file: In a run's folder, or with a card beside it.

    Returns:
        The command, and what of the run's summary tells how good it is; empty where nothing is known.
    """
    card = _read_json(card_path(weights_file))
    if isinstance(card.get("provenance"), dict):
        return card["provenance"]
    summary = _read_json(weights_file.parent / "summary.json")
    provenance = {name: summary[name] for name in _KEPT if name in summary}
    try:
        settings = (weights_file.parent / "config.json").read_text(encoding="utf-8")
        return {"command": command_of(configs.from_json(settings, "config.json")), **provenance}
    except (OSError, UnicodeDecodeError, InputError):
        return provenance


def make_card(file: Path, provenance: dict[str, Any], kind: str, verified: dict[str, Any]) -> dict[str, Any]:
    """Describes an exported file: what it takes and gives, what made it, and how it was checked."""
    return {
        "format": kind,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "input": TORCH_INPUT if kind == "torch" else INPUT,
        "output": OUTPUT,
        "verified": verified,
        "provenance": provenance,
    }


def command_of(config: TrainConfig) -> str:
    """Writes the command line that trains with these settings: the recipe, and the flags that differ from it."""
    base, words = RECIPES[config.recipe], ["python", "-m", "jax_s6.train", "--recipe", config.recipe]
    sections = [(base, config)]
    sections += [(getattr(base, f.name), getattr(config, f.name)) for f in dataclasses.fields(config)]
    for before, after in sections:
        for f in dataclasses.fields(after) if dataclasses.is_dataclass(after) else ():
            value = getattr(after, f.name)
            if dataclasses.is_dataclass(value) or f.name == "recipe" or value == getattr(before, f.name):
                continue
            flag = f"--{f.name.replace('_', '-')}"
            if value is False or value is None:  # no flag takes back what a recipe has
                return "python -m jax_s6.train --config config.json"
            words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)


def _read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
