"""The layers of the network: the table that the page shows, and the weights with which it computes."""

import base64

import jax
import numpy as np

from jax_s6.predict.model import Model

# The six convolutions in order: block, stride, and whether 2x2 max-pooling follows.
LAYERS = (("conv1", 1, False), ("conv1", 2, True), ("conv2", 1, False), ("conv2", 2, True), ("conv3", 1, False),
          ("conv3", 2, False))  # fmt: skip


def pack_weights(network: Model) -> str:
    """Pack the kernel (HWIO), the bias, and batch normalisation as scale and shift, of each convolution.

    Returns:
        Base64 of little-endian float32.
    """
    parts = []
    for number, (block, _, _) in enumerate(LAYERS):
        conv, norm = f"conv_{number % 2}", f"norm_{number % 2}"
        params, stats = (network.variables[kind][block] for kind in ("params", "batch_stats"))
        scale = params[norm]["scale"].astype(np.float64) / np.sqrt(stats[norm]["var"].astype(np.float64) + 1e-5)
        shift = params[norm]["bias"] - stats[norm]["mean"] * scale
        parts += [params[conv]["kernel"], params[conv]["bias"], scale, shift]
    return base64.b64encode(np.concatenate([np.ravel(p) for p in parts]).astype("<f4").tobytes()).decode()


def layer_rows(network: Model) -> list[list[str]]:
    """List block, layer, output size, receptive field, stride in pixels of the image, and number of parameters."""
    rows, size, field, jump = [], 28, 1, 1
    for number, (block, stride, pool) in enumerate(LAYERS):
        layer = [network.variables["params"][block][f"{kind}_{number % 2}"] for kind in ("conv", "norm")]
        count = sum(x.size for x in jax.tree.leaves(layer))
        size, field, jump = (size - 1) // stride + 1, field + 2 * jump, jump * stride
        name = f"Conv3x3{' /2' if stride == 2 else ''}, ReLU, BN"
        rows.append([block, name, f"{size}x{size}x16", f"{field}x{field}", f"{jump}", f"{count:,}"])
        if pool:
            size, field, jump = size // 2, field + jump, jump * 2
            rows.append([block, "MaxPool2", f"{size}x{size}x16", f"{field}x{field}", f"{jump}", "0"])
    rows.append(["head", "Global average pooling, log-softmax", "16", f"{field}x{field}", f"{jump}", "0"])
    total = sum(x.size for x in jax.tree.leaves(network.variables["params"]))
    return [*rows, ["total", "", "", "", "", f"{total:,}"]]
