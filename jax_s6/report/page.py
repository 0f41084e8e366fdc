"""The report as one HTML file, with its data, charts and networks inside."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax_s6 import backprop, data
from jax_s6.backprop.network import COLUMNS
from jax_s6.errors import InputError
from jax_s6.network.net import MEAN, NUM_PARAMS, STD
from jax_s6.predict.model import Model, load_model
from jax_s6.report.evaluation import evaluate
from jax_s6.report.folder import Folder
from jax_s6.report.layers import LAYERS, layer_rows, pack_weights
from jax_s6.runs.score_card import score_card
from jax_s6.settings import flatten

ASSETS = Path(__file__).parent / "_page"


def page_data(folders: Sequence[Folder]) -> dict[str, Any]:
    """Collect everything that the page shows.

    Args:
        folders: Runs and sweeps, at least one.

    Returns:
        The data that ``page.js`` reads, ready for JSON.

    Raises:
        InputError: No folder has weights.
    """
    networks = [(folder, load_model(folder.params)) for folder in folders if folder.params is not None]
    if not networks:
        raise InputError(f"dirs have no params.safetensors to evaluate ({folders[0].name}): train again to write one")
    lanes = [
        {**lane, "label": f"{folder.name}: {lane['label']}"} if len(folders) > 1 < len(folder.lanes) else lane
        for folder in folders
        for lane in folder.lanes
    ]
    part1 = backprop.BackpropConfig()
    errors = backprop.compute_sheets(part1)[:, :, COLUMNS.index("E")]
    names = ", ".join(folder.name for folder in folders)
    return {
        "about": f"Runs and sweeps shown: {names}. Each network has {NUM_PARAMS:,} parameters.",
        "mean": MEAN,
        "std": STD,
        "architecture": [
            {"channels": 16 if number else 1, "stride": stride, "pool": pool}
            for number, (_, stride, pool) in enumerate(LAYERS)
        ],
        "models": [_model_data(folder, network) for folder, network in networks],
        "lanes": lanes,
        "lanes_left_out": sum(folder.num_left_out for folder in folders),
        "results": [{"folder": folder.name, **result} for folder in folders for result in folder.results],
        "layers": layer_rows(networks[0][1]),
        "part1": {"learning_rates": part1.learning_rates, "errors": errors.round(8).tolist()},
    }


def _model_data(folder: Folder, network: Model) -> dict[str, Any]:
    """Collect what the page shows of one network, and evaluate it."""
    about = {key: folder.summary.get(key) for key in ("versions", "device", "machine", "data_checksum")}
    settings = flatten({**vars(folder.config), **about}, dotted=True)
    return {
        "name": folder.name,
        "class_names": network.class_names,
        "weights": pack_weights(network),
        "score_card": score_card(folder.config, folder.summary),
        "settings": [(name, str(value)) for name, value in settings.items()],
        **evaluate(network, data.load(folder.config.data)),
    }


def render(values: dict[str, Any]) -> str:
    """Insert the data, the scripts and the styles into the template."""
    # No text in the data, such as the name of a folder, may end the script element that holds it.
    text = json.dumps(values, separators=(",", ":"), allow_nan=False, default=str).replace("<", "\\u003c")

    def part(match: re.Match[str]) -> str:
        return text if match[1] == "data" else (ASSETS / match[1]).read_text(encoding="utf-8")

    return re.sub(r"\{\{([\w.]+)\}\}", part, (ASSETS / "page.html").read_text(encoding="utf-8"))
