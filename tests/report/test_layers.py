"""The table of layers, against the network itself."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_s6 import data
from jax_s6.config import DataConfig
from jax_s6.network import net
from jax_s6.report.layers import layer_rows


def test_layers_agree_with_the_network_and_receptive_fields_with_gradients(network):
    rows = layer_rows(network)
    for name, _, shape, _ in net.layer_table():
        height, width, channels = (shape.split("x") + ["", ""])[:3] if "x" in shape else (shape, "", "")
        last = [row for row in rows if row[0] == name][-1]
        assert last[2] == (f"{height}x{width}x{channels}" if width else shape)
    assert rows[-1][-1] == "11,952" and sum(int(row[-1].replace(",", "")) for row in rows[:-1]) == 11_952
    # After the first convolution of conv2 a value sees 15x15 pixels: nothing outside changes it, their corners do.
    assert [row[3] for row in rows][:4] == ["3x3", "5x5", "7x7", "15x15"]

    variables = jax.tree.map(jnp.asarray, network.variables)

    def value(images):
        seen = net.Net().apply(variables, images, capture_intermediates=True, mutable=True)[1]
        return seen["intermediates"]["conv2"]["conv_0"]["__call__"][0][0][:, 3, 3].sum()  # of the first chunk, CHWN

    images = data.load(DataConfig(data_dir=data.EMBEDDED)).test_images[:16].astype(np.float32)
    gradient = np.abs(jax.jit(jax.grad(value))(images))[..., 0].sum(0)
    rows_seen, columns_seen = (np.flatnonzero(gradient.any(axis)) for axis in (1, 0))
    assert np.ptp(rows_seen) + 1 == np.ptp(columns_seen) + 1 == 15
