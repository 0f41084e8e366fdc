"""ONNX Runtime's arm of ``predict``: the network as an ONNX graph."""

import time
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.arms import work
from benchmarks.arms.predict_ours import loss_of
from benchmarks.worker import Task


def graph() -> Any:
    """Builds the network, from normalised images ``[batch, 1, 28, 28]`` to logits ``[batch, 16]``."""
    nodes, value = [], "images"
    arrays = work.state_dict()
    for name in work.IN_CHANNELS:
        stride, norm = (2 if name.endswith("3") else 1), f"{name[:-1]}{int(name[-1]) + 2}"
        kernel = [value, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", kernel, [f"{name}.y"], pads=[1, 1, 1, 1], strides=[stride, stride]))
        nodes.append(helper.make_node("Relu", [f"{name}.y"], [f"{name}.relu"]))
        parts = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        nodes.append(helper.make_node("BatchNormalization", [f"{name}.relu", *parts], [value := f"{norm}.y"]))
        if name in ("conv1.3", "conv2.3"):
            pool = [f"{name}.pool"]
            nodes.append(helper.make_node("MaxPool", [value], pool, kernel_shape=[2, 2], strides=[2, 2]))
            value = pool[0]
    nodes.append(helper.make_node("ReduceMean", [value], ["logits"], axes=[2, 3], keepdims=0))
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 28, 28])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 16])]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(
        helper.make_graph(nodes, "net", inputs, outputs, tensors), opset_imports=opset, ir_version=9
    )


def predict(*, batch: int, part: int | None = None) -> Task:
    """ONNX Runtime's own defaults, which are its best; from uint8 NumPy images, so many at once, to NumPy logits."""
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(graph().SerializeToString(), providers=onnxruntime.get_available_providers())
    seconds = time.perf_counter() - start
    images, labels = work.digits(batch)
    size = part or batch

    def logits() -> np.ndarray:
        return np.concatenate([logits_of(images[i : i + size]) for i in range(0, batch, size)])

    def logits_of(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"images": work.normalised(images).transpose(0, 3, 1, 2)})[0])

    def run(n: int) -> None:
        for _ in range(n):
            logits()

    num_params = sum(array.size for name, array in work.state_dict().items() if "running" not in name)
    return Task(run, batch, num_params, [loss_of(logits(), labels)], seconds)
