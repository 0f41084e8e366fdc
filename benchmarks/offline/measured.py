"""The rates that were measured on a target, where there are any: the truth beside the estimates."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import results

FOLDER = Path(__file__).parent.parent / "results"
AUTO = "matmul"
"""What ``auto`` has been in all results that were measured on a GPU."""


def rate(target: str, arm: Any, lanes: int, batch: int, precision: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return the measured images per second of an arm of ``programs``: median, quartiles and number; None if none is.

    Args:
        target: Its results are in the folders whose names begin with this.
        arm: See ``programs.Arm``.
        lanes: Number of networks trained at once.
        batch: Number of images per step and lane.
        precision: ``float32`` or ``bf16``.
        folder: The folder of the results' folders.
    """
    for entry in _entries(target, folder):
        same = (lanes, batch, precision) == (*_sizes(entry), entry["precision"])
        if same and _is_arm(entry, arm):
            return entry["value"]
    return None


def _entries(target: str, folder: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of a target's results, the newest first."""
    found = [results.read(path) for path in folder.glob(f"{target}*/results.json")]
    for result in sorted(found, key=lambda result: result["datetime"], reverse=True):
        for item in result["benchmarks"]:
            if item["extra_info"]["question"] in ("train_step", "sweep"):
                yield item["extra_info"]


def _sizes(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return the lanes and the batch size of an entry."""
    settings = {"lanes": 1, "batch": 64, **entry["settings"], entry["axis"]: entry["case"]}
    return settings["lanes"], settings["batch"]


def _is_arm(entry: Mapping[str, Any], arm: Any) -> bool:
    if entry["peer"] or arm.peer:
        return entry["peer"] and arm.peer and entry["arm"].startswith(arm.name) and "scan" in entry["arm"]
    settings = dict(entry["settings"])
    convolution = settings.pop("convolution", "auto")
    return arm.convolution == (AUTO if convolution == "auto" else convolution) and settings.keys() <= {"precision"}
