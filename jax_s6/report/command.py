"""The report: one HTML file with its data, charts and network inside. ``python -m jax_s6.report``."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jax_s6 import backend, cli, data
from jax_s6.backprop import command as backprop
from jax_s6.errors import InputError
from jax_s6.network import net as model
from jax_s6.predict.model import DEFAULT_MODEL, load_model
from jax_s6.report import evaluation as report_judge
from jax_s6.report.folder import Folder, read_folder
from jax_s6.runs.console import console
from jax_s6.runs.files import make_folder, write_text
from jax_s6.runs.score_card import score_card
from jax_s6.settings import flatten

PROG = "python -m jax_s6.report"
ASSETS = Path(__file__).parent / "_page"
MAX_BYTES = 5_000_000


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Write one self-contained HTML page about runs and sweeps, with a canvas whose drawings it reads.

    Score card, curves, accuracy against learning rate, confusion matrix, mistakes, calibration, filters, layers and
    Part 1's graph. The page needs no network and no server.
    """

    dirs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="DIR")]
    """Folders of finished runs and sweeps, one or more."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The page; report.html in the first folder if not given. A page that is there is replaced, another file is not."""


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = cli.parse(ReportCommand, prog=PROG, args=args)
    if not command.dirs:
        raise InputError(f"dirs must name at least one folder of a run or a sweep (see {PROG} --help)")
    folders = [read_folder(path) for path in command.dirs]
    out = command.out or command.dirs[0] / "report.html"
    if out.is_dir():
        raise InputError(f"out must be a file, but {out} is a folder: give one such as {out / 'report.html'}")
    if out.exists() and not _is_page(out):
        raise InputError(f"out {out} is there and is not an HTML page: give another file")
    make_folder(out.parent)
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    page = render(page_data(folders))
    if len(page.encode()) > MAX_BYTES:
        raise InputError(f"dirs give a page of more than {MAX_BYTES // 10**6} MB: name fewer folders")
    write_text(out, page)
    console.print(f"wrote {out} ({len(page.encode()) / 1000:,.0f} kB): open it in a browser", soft_wrap=True)


def _is_page(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(15).lower() == b"<!doctype html>"
    except OSError:
        return False


def page_data(folders: Sequence[Folder]) -> dict[str, Any]:
    """Collects all that the page shows.

    Args:
        folders: Runs and sweeps, at least one.

    Returns:
        What ``page.js`` reads, ready for JSON.
    """
    models = [_model_data(folder) for folder in folders if folder.params is not None]
    several = len(folders) > 1
    lanes = [
        {**lane, "label": f"{folder.name}: {lane['label']}" if several and len(folder.lanes) > 1 else lane["label"]}
        for folder in folders
        for lane in folder.lanes
    ]
    if not models:
        raise InputError(f"dirs have no params.safetensors to judge ({folders[0].name}): train again, which writes one")
    config = backprop.BackpropConfig()
    errors = backprop.compute_sheets(config)[:, :, backprop.COLUMNS.index("E")]
    head = ["block", "layer", "output", "receptive field", "pixels a step", "parameters"]
    return {
        "about": f"{', '.join(folder.name for folder in folders)}: a network of {model.NUM_PARAMS:,} parameters.",
        "mean": model.MEAN,
        "std": model.STD,
        "architecture": [
            {"channels": 16 if number else 1, "stride": stride, "pool": pool}
            for number, (_, stride, pool) in enumerate(report_judge.LAYERS)
        ],
        "models": models,
        "lanes": lanes,
        "lanes_left_out": sum(folder.num_left_out for folder in folders),
        "results": [{"folder": folder.name, **result} for folder in folders for result in folder.results],
        "layers": {"head": head, "rows": report_judge.layer_rows(load_model(DEFAULT_MODEL))},
        "part1": {"learning_rates": config.learning_rates, "errors": errors.round(8).tolist()},
    }


def _model_data(folder: Folder) -> dict[str, Any]:
    """Judges one folder's network."""
    network = load_model(folder.params)
    return {
        "name": folder.name,
        "class_names": network.class_names,
        "weights": report_judge.pack_weights(network),
        "score_card": score_card(folder.config, folder.summary),
        "settings": _settings(folder),
        **report_judge.judge(network, data.load(folder.config.data)),
    }


def _settings(folder: Folder) -> list[tuple[str, str]]:
    """Flattens settings, versions and machine to rows of text."""
    about = {key: folder.summary.get(key) for key in ("versions", "device", "machine", "data_checksum")}
    return [(name, str(value)) for name, value in flatten({**vars(folder.config), **about}, dotted=True).items()]


def render(values: dict[str, Any]) -> str:
    """Puts data and assets into the page's template."""
    # Neither a name of a folder nor anything else may end the script element that holds the data.
    text = json.dumps(values, separators=(",", ":"), allow_nan=False, default=str).replace("<", "\\u003c")

    def part(match: re.Match[str]) -> str:
        return text if match[1] == "data" else (ASSETS / match[1]).read_text(encoding="utf-8")

    return re.sub(r"\{\{([\w.]+)\}\}", part, (ASSETS / "page.html").read_text(encoding="utf-8"))
