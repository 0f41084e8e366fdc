"""The ONNX graph has one node per operation, PyTorch's names and a free batch size."""

import onnx


def test_onnx_graph_is_clean(exported):
    made = onnx.load_model_from_string((exported / "onnx").read_bytes())
    kinds = [node.op_type for node in made.graph.node]
    layer = ["Conv", "Relu", "BatchNormalization"]
    block = [*layer, *layer, "MaxPool"]
    assert kinds == ["Cast", "Transpose", "Mul", "Add", *block, *block, *layer, *layer, "GlobalAveragePool", "Flatten"]
    assert [(o.domain, o.version) for o in made.opset_import] == [("", 17)]
    shapes = [
        (v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in (*made.graph.input, *made.graph.output)
    ]
    assert shapes == [("images", ["batch", 28, 28, 1]), ("logits", ["batch", 16])]
    names = {i.name for i in made.graph.initializer}
    assert {"conv1.0.weight", "conv3.5.running_var"} < names and len(names) == 36 + 2
    assert {p.key for p in made.metadata_props} >= {"command", "seed", "test_accuracy"}
