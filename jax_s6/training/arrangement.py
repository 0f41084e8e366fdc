"""How a group's lanes are spread over devices: pure functions of sizes and of what the devices say of themselves."""

from typing import NamedTuple

import jax

from jax_s6 import backend

SHARE_OF_MEMORY = 0.8
"""What lanes may take of an accelerator's free memory by the estimate; if that is too much, the width is halved."""
BYTES_PER_IMAGE = 1_000_000
"""Working set of a training step, an image of the batch: its activations twice, in float32."""


class Arrangement(NamedTuple):
    """Where a group's lanes run.

    Attributes:
        devices: Those that are used.
        lane_devices: Into how many parts the lanes go; each batch is split over ``len(devices) / lane_devices``.
        width: Lanes at once on a device.
    """

    devices: list[jax.Device]
    lane_devices: int
    width: int

    @property
    def chunk(self) -> int:
        """Lanes at once on all devices."""
        return self.lane_devices * self.width


def arrange(
    num_lanes: int, batch_size: int, devices: list[jax.Device], width: int | None, explicit: bool
) -> Arrangement:
    """Spreads lanes over devices, and each batch over those that are left when there are fewer lanes.

    Args:
        num_lanes: Lanes of the group.
        batch_size: Images a step.
        devices: Those that may be used.
        width: The most lanes at once on a device; None for 1 on CPU, and what fits on an accelerator.
        explicit: Whether the user chose the number of devices: only then are batches split over accelerators, or over
            CPU devices into parts smaller than ``backend.MIN_PART``.

    Returns:
        The arrangement. A lane whose batch is split equals the same run alone to rounding, on one device bit for bit.
    """
    platform = devices[0].platform
    lane_devices, parts = min(num_lanes, len(devices)), 1
    if jax.process_count() > 1:
        lane_devices = len(devices)  # every process takes part in every program; batches stay within a process
    elif num_lanes < len(devices) and (platform == "cpu" or explicit):
        parts = backend.equal_parts(batch_size, len(devices) // num_lanes, 1 if explicit else backend.MIN_PART)
    lanes_each = -(-num_lanes // lane_devices)
    most = width or (1 if platform == "cpu" else fitting_width(devices[0], batch_size))
    return Arrangement(devices[: lane_devices * parts], lane_devices, balanced(lanes_each, most))


def balanced(lanes_each: int, most: int) -> int:
    """Returns the width at which a device takes its lanes in equal parts of at most ``most``: 5 for 10 and 8."""
    return -(-lanes_each // -(-lanes_each // most))


def fitting_width(device: jax.Device, batch_size: int) -> int:
    """Estimates how many lanes an accelerator's memory holds at once."""
    stats = device.memory_stats() or {}
    free = stats.get("bytes_limit", 8 << 30) - stats.get("bytes_in_use", 0)
    return max(1, int(SHARE_OF_MEMORY * free) // (batch_size * BYTES_PER_IMAGE))
