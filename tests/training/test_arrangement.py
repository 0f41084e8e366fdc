"""How lanes and batches are spread over devices; nothing here compiles."""

import jax

from jax_s6 import backend
from jax_s6.training.arrangement import arrange, balanced


def test_lanes_go_to_devices_first_and_what_is_left_to_the_batch():
    four = jax.devices()[:4]

    def parts(num_lanes, batch_size=256, devices=four, width=None, explicit=False):
        found = arrange(num_lanes, batch_size, devices, width, explicit)
        return found.lane_devices, len(found.devices) // found.lane_devices, found.width

    assert parts(8) == parts(5) == parts(4) == (4, 1, 1)
    assert parts(3) == (3, 1, 1)
    assert parts(2) == (2, 2, 1)
    assert parts(1) == (1, 4, 1)
    assert parts(1, batch_size=258) == (1, 2, 1), "each device must have equal chunks of a batch"
    assert parts(1, batch_size=128) == (1, 2, 1), "parts of fewer than 64 images are slower than one device"
    assert parts(1, batch_size=64, explicit=True) == (1, 4, 1)
    assert parts(40, width=4) == (4, 1, 4)  # ten lanes per device: 4, 4 and 2 would be 3 calls, as 4 is
    assert [balanced(10, most) for most in (1, 4, 5, 8, 10, 99)] == [1, 4, 5, 5, 10, 10]


def test_a_run_takes_as_many_cpu_devices_as_get_64_images_each():
    def count(batch_size, num_devices=None):
        devices = jax.devices() if num_devices is None else backend.first_devices(num_devices)
        return len(arrange(1, batch_size, devices, None, explicit=num_devices is not None).devices)

    assert [count(batch_size) for batch_size in (32, 64, 127, 128, 192, 256, 1024)] == [1, 1, 1, 2, 2, 4, 4]
    assert [backend.devices_per_batch(size, 4) for size in (32, 64, 127, 128, 192, 256)] == [1, 1, 1, 2, 2, 4]
    assert count(64, 2) == 2, "what the user asks for is taken"


class Gpu:
    """Stands for an accelerator."""

    platform = "gpu"

    def __init__(self, gigabytes):
        self.gigabytes = gigabytes

    def memory_stats(self):
        return {"bytes_limit": self.gigabytes * 10**9, "bytes_in_use": 0}


def test_width_on_an_accelerator_follows_its_memory():
    def widths(num_lanes, gigabytes):
        return arrange(num_lanes, 64, [Gpu(gigabytes)], None, explicit=False).width  # pyright: ignore

    assert widths(1000, 80) > 2 * widths(1000, 16) > 2
    assert widths(6, 80) == 6, "never wider than there are lanes"
    assert widths(1000, 0.01) == 1


def test_a_single_lane_takes_one_accelerator_unless_more_are_chosen():
    def count(explicit):
        return len(arrange(1, 128, [Gpu(80)] * 4, None, explicit).devices)  # pyright: ignore

    assert (count(False), count(True)) == (1, 4)
