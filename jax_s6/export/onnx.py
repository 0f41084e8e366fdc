"""The network as an ONNX graph of 26 nodes, by hand: a convolution, a ReLU and a batch normalisation are one node each.

jax2onnx 0.17.1 does not take CHWN convolutions, and of an NCHW rewriting of the network it makes 44 nodes, among them
separate biases, unfolded normalisation and squeezes, with names such as ``const_0`` and ``in_0``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_s6.errors import InputError
from jax_s6.network import net as model
from jax_s6.network import weights

OPSET, IR_VERSION = 17, 8
"""Of ONNX 1.12 (2022): nothing newer is needed, and older runtimes read it."""


def to_onnx(variables: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    """Builds the model.

    Args:
        variables: ``{"params": ..., "batch_stats": ...}``.
        metadata: Strings that the model carries along.

    Returns:
        An ``onnx.ModelProto``: ``images`` uint8 ``[batch, 28, 28, 1]`` to ``logits`` float32 ``[batch, 16]``, weights
        by PyTorch's names (``conv1.0.weight``), checked by ONNX's own checker, shapes inferred.

    Raises:
        InputError: The package onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise InputError("format onnx needs the package onnx: pip install 'jax-s6[onnx]'") from None

    arrays = weights.to_torch_state_dict(variables)
    scale, offset = 1 / (255 * model.STD), -model.MEAN / model.STD
    arrays |= {"normalize.scale": np.array(scale, np.float32), "normalize.offset": np.array(offset, np.float32)}
    nodes = _nodes(helper)
    graph = helper.make_graph(
        nodes,
        "jax_s6",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 28, 28, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", model.NUM_OUTPUTS])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = helper.make_operatorsetid("", OPSET)
    made = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="jax_s6")
    helper.set_model_props(made, dict(metadata))
    onnx.checker.check_model(made, full_check=True)
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def _nodes(helper: Any) -> list[Any]:
    """Lists the graph's nodes in order, each named by its output."""
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
