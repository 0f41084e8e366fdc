"""The command line of ``python -m jax_s6.report``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jax_s6 import backend, cli
from jax_s6.errors import InputError
from jax_s6.report.folder import read_folder
from jax_s6.report.page import page_data, render
from jax_s6.runs.console import console
from jax_s6.runs.files import make_folder, write_text

PROG = "python -m jax_s6.report"
MAX_BYTES = 5_000_000


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Write one HTML page about runs and sweeps, which works without a server or an internet connection.

    The page shows the score card, training curves, accuracy against learning rate, confusion matrix, mistakes,
    calibration, filters, layers, and the graph of Part 1. It also predicts digits that are drawn on it.
    """

    dirs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="DIR")]
    """Folders of finished runs and sweeps, one or more."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The page to write; report.html in the first folder if not given. Replaces an HTML page, but no other file."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    command = cli.parse(ReportCommand, prog=PROG, args=args)
    if not command.dirs:
        raise InputError(f"dirs must name at least one folder of a run or a sweep (see {PROG} --help)")
    folders = [read_folder(path) for path in command.dirs]
    out = command.out or command.dirs[0] / "report.html"
    if out.is_dir():
        raise InputError(f"out must be a file, but {out} is a folder: give one such as {out / 'report.html'}")
    if out.exists() and not _is_page(out):
        raise InputError(f"out {out} exists and is not an HTML page: give another file")
    make_folder(out.parent)
    backend.use_cpu_devices()
    backend.use_compilation_cache(backend.cache_folder())
    page = render(page_data(folders))
    if len(page.encode()) > MAX_BYTES:
        raise InputError(f"dirs lead to a page of more than {MAX_BYTES // 10**6} MB: name fewer folders")
    write_text(out, page)
    console.print(f"wrote {out} ({len(page.encode()) / 1000:,.0f} kB): open it in a browser", soft_wrap=True)


def _is_page(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(15).lower() == b"<!doctype html>"
    except OSError:
        return False
