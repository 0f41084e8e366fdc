"""Exports: each file computes what the network does, elsewhere, and is not kept if it does not."""

import json
import sys

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file

from jax_s6 import cli
from jax_s6.config import DataConfig
from jax_s6.data import dataset as data
from jax_s6.export import card as export_card
from jax_s6.export import command as export
from jax_s6.network import weights
from jax_s6.predict.command import load_model


@pytest.fixture(scope="module")
def images():
    return data.load(DataConfig(data_dir=data.EMBEDDED)).test_images


@pytest.fixture(scope="module")
def network():
    return load_model()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """All four formats, written by the command, which verifies them on all 10,000 images."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in ("stablehlo", "onnx", "safetensors", "torch"):
        export.main(["--format", kind, "--out", str(folder / kind)])
    return folder


def test_stablehlo_runs_with_any_batch_and_is_lowered_for_three_platforms(exported, network, images):
    program = jax.export.deserialize(bytearray((exported / "stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(d) for d in program.in_avals[0].shape] == ["batch", "28", "28", "1"]
    for batch in (1, 13):
        np.testing.assert_allclose(program.call(images[:batch]), network.logits(images[:batch]), atol=2e-5)


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


def test_onnx_runtime_gives_the_networks_logits_on_all_test_images(exported, network, images):
    session = onnxruntime.InferenceSession((exported / "onnx").read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images})
    expected = network.logits(images)
    assert np.array_equal(logits.argmax(1), expected.argmax(1))
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.torch
def test_the_references_net_loads_the_torch_file_strictly(exported, network, images):
    import torch
    from safetensors.torch import load_file as load_torch

    from tests.parity.reference import Net

    net = Net().eval()
    net.load_state_dict(load_torch(exported / "torch"), strict=True)
    pixels = torch.from_numpy((images[:500].astype(np.float32) / 255 - np.float32(0.1307)) / np.float32(0.3081))
    with torch.no_grad():
        logits = net(pixels.permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(logits, network.logits(images[:500]), atol=5e-5)


def test_weights_come_back_bit_for_bit(exported, network):
    for kind in ("safetensors", "torch"):
        jax.tree.map(np.testing.assert_array_equal, weights.load(exported / kind), network.variables)


def test_cards_say_what_made_the_weights_and_pass_it_on(exported, tmp_path):
    card = json.loads(export_card.card_path(exported / "onnx").read_text())
    assert card["format"] == "onnx" and card["verified"]["images"] == 10_000
    assert card["verified"]["largest_difference"] <= 1e-5
    assert card["provenance"]["command"].startswith("python -m jax_s6.train")
    assert card["input"].startswith("images: uint8 [batch, 28, 28, 1]")
    assert "[batch, 1, 28, 28]" in json.loads(export_card.card_path(exported / "torch").read_text())["input"]
    assert export_card.read_provenance(exported / "safetensors") == card["provenance"]


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, network, images, monkeypatch):
    def write_wrong(path, variables, metadata):
        arrays = weights.to_torch_state_dict(variables)
        arrays["conv3.5.bias"] = arrays["conv3.5.bias"] + np.float32(1e-3)
        save_file(arrays, path)

    read = export._FORMATS["safetensors"][1]
    monkeypatch.setitem(export._FORMATS, "torch", (write_wrong, read))
    with pytest.raises(RuntimeError, match="differ by .* nothing kept"):
        export.export(network, "torch", tmp_path / "net.safetensors", images[:200])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--format"),
        (["--format", "coreml"], "--format"),
        (["--format", "torch", "--out", "{tmp}"], "out must be a file"),
        (["--format", "torch", "--out", "{tmp}/there"], "--overwrite to replace it"),
        (["--format", "torch", "--out", "/proc/none/net"], "cannot be written to"),
        (["--format", "torch", "--run", "{tmp}", "--out", "{tmp}/new"], "has no params.safetensors"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(args, message, tmp_path, capsys):
    (tmp_path / "there").write_text("kept")
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: export.main([arg.format(tmp=tmp_path) for arg in args]))
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1 and message in printed.err
    assert [p.name for p in tmp_path.iterdir()] == ["there"] and (tmp_path / "there").read_text() == "kept"


def test_without_the_extra_the_sentence_names_it(monkeypatch, tmp_path, network, images, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit):
        cli.run(lambda: export.main(["--format", "onnx", "--out", str(tmp_path / "m.onnx")]))
    assert "pip install 'jax-s6[onnx]'" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_the_torch_file_has_nothing_but_the_nets_names(exported):
    names = set(load_file(exported / "torch"))
    assert "conv1.2.num_batches_tracked" in names and len(names) == 42
