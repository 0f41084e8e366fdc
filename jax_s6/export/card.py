"""The JSON card beside every exported file: what the file contains, and how the network was trained."""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from jax_s6.config import RECIPES, TrainConfig, from_json
from jax_s6.errors import InputError
from jax_s6.settings import flatten

INPUT = "images: uint8 [batch, 28, 28, 1], 0 to 255, light on dark as MNIST"
TORCH_INPUT = (
    "images: float32 [batch, 1, 28, 28], (x / 255 - 0.1307) / 0.3081 of x from 0 to 255, light on dark as MNIST"
)
OUTPUT = "logits: float32 [batch, 16], of which labels use the first 10; softmax gives probabilities"
_KEPT = ("recipe", "seed", "num_params", "num_epochs", "test_accuracy", "test_loss", "data_checksum", "versions")


def card_path(file: Path) -> Path:
    """Return the path of a file's card, such as ``model.onnx.json``."""
    return file.with_name(f"{file.name}.json")


def read_provenance(weights_file: Path) -> dict[str, Any]:
    """Find out how a network was trained.

    Args:
        weights_file: The file of its weights, in a run's folder or with a card beside it.

    Returns:
        The command, and the settings and results in the run's summary; empty if nothing is known.
    """
    card = _read_json(card_path(weights_file))
    if isinstance(card.get("provenance"), dict):
        return card["provenance"]
    summary = _read_json(weights_file.parent / "summary.json")
    provenance = {name: summary[name] for name in _KEPT if name in summary}
    try:
        settings = (weights_file.parent / "config.json").read_text(encoding="utf-8")
        return {"command": command_of(from_json(settings, "config.json")), **provenance}
    except (OSError, UnicodeDecodeError, InputError):
        return provenance


def make_card(file: Path, provenance: dict[str, Any], kind: str, verified: dict[str, Any]) -> dict[str, Any]:
    """Describe an exported file: its input and output, how the network was trained, and how the file was verified."""
    return {
        "format": kind,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "input": TORCH_INPUT if kind == "torch" else INPUT,
        "output": OUTPUT,
        "verified": verified,
        "provenance": provenance,
    }


def command_of(config: TrainConfig) -> str:
    """Return the command line that trains with these settings: the recipe, and the flags that differ from it."""
    recipe, words = flatten(RECIPES[config.recipe]), ["python", "-m", "jax_s6.train", "--recipe", config.recipe]
    changed = {name: value for name, value in flatten(config).items() if value != recipe[name]}
    for name, value in changed.items():
        if value is False or value is None:  # no flag can undo this setting of a recipe
            return "python -m jax_s6.train --config config.json"
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
