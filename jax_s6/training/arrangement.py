"""How a group's lanes are distributed over devices: pure functions of sizes and of the devices' properties."""

from typing import NamedTuple

import jax

from jax_s6 import backend

MEMORY_FRACTION = 0.8
"""Fraction of an accelerator's free memory that lanes may use by the estimate; too many lanes halve the width."""
BYTES_PER_IMAGE = 1_000_000
"""Memory that a training step needs per image of the batch: its activations twice, in float32."""


class Arrangement(NamedTuple):
    """Where a group's lanes run.

    Attributes:
        devices: The devices that are used.
        lane_devices: Number of parts of the lanes. Each batch is split over ``len(devices) / lane_devices`` devices.
        width: Number of lanes at once on a device.
    """

    devices: list[jax.Device]
    lane_devices: int
    width: int

    @property
    def chunk(self) -> int:
        """Number of lanes at once on all devices."""
        return self.lane_devices * self.width


def arrange(
    num_lanes: int, batch_size: int, devices: list[jax.Device], width: int | None, explicit: bool
) -> Arrangement:
    """Distribute lanes over devices; if there are fewer lanes than devices, split each batch over the others.

    Args:
        num_lanes: Number of lanes of the group.
        batch_size: Images per step.
        devices: The devices that may be used.
        width: Largest number of lanes at once on a device; None: 1 on CPU, and what fits on an accelerator.
        explicit: Whether the user chose the number of devices. Only then are batches split over accelerators, or over
            CPU devices into parts smaller than ``backend.MIN_PART``.

    Returns:
        The arrangement. On CPU a lane equals the same run alone bit for bit if devices share batches by whole chunks,
        as they do by default.
    """
    platform = devices[0].platform
    lane_devices, parts = min(num_lanes, len(devices)), 1
    if jax.process_count() > 1:
        lane_devices = len(devices)  # every process takes part in every program; batches stay within a process
    elif num_lanes < len(devices) and (platform == "cpu" or explicit):
        most = len(devices) // num_lanes
        parts = backend.equal_parts(batch_size, most) if explicit else backend.devices_per_batch(batch_size, most)
    lanes_each = -(-num_lanes // lane_devices)
    most = width or (1 if platform == "cpu" else fitting_width(devices[0], batch_size))
    return Arrangement(devices[: lane_devices * parts], lane_devices, balanced(lanes_each, most))


def balanced(lanes_each: int, most: int) -> int:
    """Return the width that divides a device's lanes into equal parts of at most ``most`` lanes: 5 for 10 and 8."""
    return -(-lanes_each // -(-lanes_each // most))


def fitting_width(device: jax.Device, batch_size: int) -> int:
    """Estimate how many lanes an accelerator's memory holds at once."""
    stats = device.memory_stats() or {}
    free = stats.get("bytes_limit", 8 << 30) - stats.get("bytes_in_use", 0)
    return max(1, int(MEMORY_FRACTION * free) // (batch_size * BYTES_PER_IMAGE))
