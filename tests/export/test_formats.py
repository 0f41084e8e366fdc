"""Each exported file computes what the network does, with a card beside it, and is not kept if it does not.

All tests of exported files are here, as each process of a test run would export them again.
"""

import json

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file

from jax_s6.export import export
from jax_s6.export.card import card_path, read_provenance
from jax_s6.export.formats import FORMATS
from jax_s6.network import weights


def test_stablehlo_runs_with_any_batch_and_is_lowered_for_three_platforms(exported, logits, images):
    program = jax.export.deserialize(bytearray((exported / "stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(d) for d in program.in_avals[0].shape] == ["batch", "28", "28", "1"]
    for batch in (1, 13):
        np.testing.assert_allclose(program.call(images[:batch]), logits[:batch], atol=2e-5)


def test_onnx_runtime_gives_the_networks_logits_on_all_test_images(exported, logits, images):
    session = onnxruntime.InferenceSession((exported / "onnx").read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images})
    assert np.array_equal(found.argmax(1), logits.argmax(1))
    assert np.abs(found - logits).max() <= 1e-5 * np.abs(logits).max()


def test_onnx_graph_has_one_node_per_operation_pytorchs_names_and_a_free_batch_size(exported):
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


@pytest.mark.torch
def test_the_references_net_loads_the_torch_file_strictly(exported, logits, images):
    import torch
    from safetensors.torch import load_file as load_torch

    from benchmarks.arms.pytorch.network import Net

    net = Net().eval()
    net.load_state_dict(load_torch(exported / "torch"), strict=True)
    pixels = torch.from_numpy((images[:500].astype(np.float32) / 255 - np.float32(0.1307)) / np.float32(0.3081))
    with torch.no_grad():
        found = net(pixels.permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(found, logits[:500], atol=5e-5)


def test_the_torch_file_has_nothing_but_the_nets_names(exported):
    names = set(load_file(exported / "torch"))
    assert "conv1.2.num_batches_tracked" in names and len(names) == 42


def test_weights_come_back_bit_for_bit(exported, network):
    for kind in ("safetensors", "torch"):
        jax.tree.map(np.testing.assert_array_equal, weights.load(exported / kind), network.variables)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, network, images, monkeypatch):
    def write_wrong(path, variables, metadata):
        arrays = weights.to_torch_state_dict(variables)
        arrays["conv3.5.bias"] = arrays["conv3.5.bias"] + np.float32(1e-3)
        save_file(arrays, path)

    monkeypatch.setitem(FORMATS, "torch", FORMATS["safetensors"]._replace(write=write_wrong))
    with pytest.raises(RuntimeError, match="differ by .* nothing kept"):
        export(network, "torch", tmp_path / "net.safetensors", images[:8])
    assert list(tmp_path.iterdir()) == []


def test_cards_tell_how_the_network_was_trained_and_pass_it_on(exported):
    card = json.loads(card_path(exported / "onnx").read_text())
    assert card["format"] == "onnx" and card["verified"]["images"] == 10_000
    assert card["verified"]["largest_difference"] <= 1e-5
    assert card["provenance"]["command"].startswith("python -m jax_s6.train")
    assert card["input"].startswith("images: uint8 [batch, 28, 28, 1]")
    assert "[batch, 1, 28, 28]" in json.loads(card_path(exported / "torch").read_text())["input"]
    assert read_provenance(exported / "safetensors") == card["provenance"]
