"""The network as an ONNX graph of 26 nodes: a convolution, a ReLU and a batch normalization are one node each.

The graph is built by hand because jax2onnx 0.17.1 does not accept CHWN convolutions. For an NCHW version of the network
it makes 44 nodes, with separate biases, unfolded normalization, squeezes, and names such as ``const_0`` and ``in_0``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_s6.errors import InputError
from jax_s6.network import net, weights

OPSET, IR_VERSION = 17, 8
"""The versions of ONNX 1.12 (2022): nothing newer is needed, and older runtimes can read them."""


def to_onnx(variables: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    """Build the model.

    Args:
        variables: ``{"params": ..., "batch_stats": ...}``.
        metadata: Strings to store in the model.

    Returns:
        An ``onnx.ModelProto`` from ``images``, uint8 ``[batch, 28, 28, 1]``, to ``logits``, float32 ``[batch, 16]``.
        Its weights have PyTorch's names (``conv1.0.weight``); ONNX's checker has checked it and inferred its shapes.

    Raises:
        InputError: The package onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise InputError("format onnx needs the package onnx: pip install 'jax-s6[onnx]'") from None

    arrays = weights.to_torch_state_dict(variables)
    scale, offset = 1 / (255 * net.STD), -net.MEAN / net.STD
    arrays |= {"normalize.scale": np.array(scale, np.float32), "normalize.offset": np.array(offset, np.float32)}
    graph = helper.make_graph(
        _nodes(helper),
        "jax_s6",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 28, 28, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", net.NUM_OUTPUTS])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = helper.make_operatorsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="jax_s6")
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def _nodes(helper: Any) -> list[Any]:
    """List the graph's nodes in order, each named after its output."""
    nodes: list[Any] = []

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    x = add("Cast", ["images"], "pixels", to=1)  # 1 is float32
    x = add("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
    x = add("Mul", [x, "normalize.scale"], "scaled")
    x = add("Add", [x, "normalize.offset"], "normalized")
    for block in ("conv1", "conv2", "conv3"):
        for conv, norm, stride in (("0", "2", 1), ("3", "5", 2)):
            name, names = f"{block}.{conv}", [f"{block}.{conv}.weight", f"{block}.{conv}.bias"]
            x = add("Conv", [x, *names], name, kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)
            x = add("Relu", [x], f"{name}.relu")
            norms = [f"{block}.{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            x = add("BatchNormalization", [x, *norms], f"{block}.{norm}", epsilon=1e-5)
        if block != "conv3":
            x = add("MaxPool", [x], f"{block}.pool", kernel_shape=[2, 2], strides=[2, 2])
    x = add("GlobalAveragePool", [x], "pooled")
    add("Flatten", [x], "logits", axis=1)
    return nodes
