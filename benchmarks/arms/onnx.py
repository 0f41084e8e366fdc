"""Prediction in ONNX Runtime: the network as an ONNX graph."""

import time
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.arms import work
from benchmarks.worker import Task, repeated


def graph() -> Any:
    """Build the network, from normalised images ``[batch, 1, 28, 28]`` to logits ``[batch, 16]``."""
    nodes, last = [], "images"

    def add(kind: str, output: str, *parameters: str, **attributes: Any) -> None:
        nonlocal last
        nodes.append(helper.make_node(kind, [last, *parameters], [output], **attributes))
        last = output

    for name, norm, _, stride, pool in work.LAYERS:
        strides = [stride, stride]
        add("Conv", f"{name}.y", f"{name}.weight", f"{name}.bias", pads=[1, 1, 1, 1], strides=strides)
        add("Relu", f"{name}.relu")
        add("BatchNormalization", f"{norm}.y", *(f"{norm}.{part}" for part in work.NORM_PARTS))
        if pool:
            add("MaxPool", f"{name}.pool", kernel_shape=[2, 2], strides=[2, 2])
    add("ReduceMean", "logits", axes=[2, 3], keepdims=0)
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 28, 28])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 16])]
    tensors = [numpy_helper.from_array(array, name) for name, array in work.state_dict().items()]
    net = helper.make_graph(nodes, "net", inputs, outputs, tensors)
    return helper.make_model(net, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def predict(*, batch: int, part: int | None = None) -> Task:
    """Predict uint8 NumPy images, ``part`` at a time, with ONNX Runtime's default settings, which are its fastest."""
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(graph().SerializeToString(), providers=onnxruntime.get_available_providers())
    seconds = time.perf_counter() - start
    images, labels = work.digits(batch)
    size = part or batch

    def logits_of(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"images": work.normalised(images).transpose(0, 3, 1, 2)})[0])

    def logits() -> np.ndarray:
        return np.concatenate([logits_of(images[i : i + size]) for i in range(0, batch, size)])

    return Task(repeated(logits), batch, work.num_params(), [work.loss_of(logits(), labels)], seconds)
