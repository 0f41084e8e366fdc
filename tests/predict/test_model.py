"""A trained network is loaded from its file, computes what the network does, and refuses what is no image."""

import json

import jax
import numpy as np
import pytest

from jax_s6.errors import InputError
from jax_s6.export.card import card_path
from jax_s6.network import weights
from jax_s6.network.net import Net
from jax_s6.predict import load_model
from jax_s6.predict.model import DEFAULT_MODEL, make_apply


def test_the_default_model_is_as_good_as_its_card_says(network, mnist):
    images, labels = mnist
    card = json.loads(card_path(DEFAULT_MODEL).read_text())
    provenance = card["provenance"]
    assert (network.predict(images) == labels).mean() == pytest.approx(provenance["test_accuracy"], abs=3e-4)
    assert provenance["command"].startswith("python -m jax_s6.train --recipe") and "seed" in provenance
    assert DEFAULT_MODEL.stat().st_size < 60_000


def test_load_model_reads_runs_and_names_classes(tmp_path, network):
    variables = jax.tree.map(lambda x: 1.5 * x, network.variables)
    weights.save(tmp_path / "params.safetensors", variables)
    (tmp_path / "config.json").write_text('{"data": {"dataset": "fashion_mnist"}}')
    loaded = load_model(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    assert loaded.class_names[9] == "ankle boot" and loaded.class_names[10] == "10"
    assert load_model(tmp_path / "params.safetensors").source == loaded.source


def test_logits_are_the_networks_for_every_form_of_images(network, mnist):
    images = mnist[0]
    expected = np.asarray(jax.jit(Net().apply)(network.variables, images[:5, ..., None]))
    np.testing.assert_allclose(network.logits(images[:5]), expected, atol=1e-5)
    np.testing.assert_allclose(network.logits(images[3].astype(np.float64)), expected[3:4], atol=1e-5)
    assert network.logits(np.zeros((0, 28, 28, 1), np.uint8)).shape == (0, 16)


@pytest.mark.parametrize(("count", "devices"), [(64, 1), (192, 3), (320, 1)])
def test_a_batch_is_shared_by_as_many_devices_as_divide_its_parts(network, mnist, count, devices):
    logits = make_apply(network.variables)(mnist[0][:count, ..., None])
    assert len(logits.sharding.device_set) == devices
    parts = [network.logits(mnist[0][start : start + 64]) for start in range(0, count, 64)]
    np.testing.assert_allclose(logits, np.concatenate(parts), atol=1e-4)


def test_weights_of_a_run_that_diverged_are_refused(tmp_path, network):
    broken = jax.tree.map(lambda x: np.full_like(x, np.inf), network.variables)
    weights.save(tmp_path / "params.safetensors", broken)
    with pytest.raises(InputError, match="not finite, because training diverged: give another run"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 27, 28)), "shape"), (np.zeros((2, 28, 28, 3)), "shape"), (np.zeros(28), "shape"),
        (np.full((28, 28), 256.0), r"\[0, 255\]"), (np.full((28, 28), np.nan), r"\[0, 255\]"),
        (np.full((28, 28), -1), r"\[0, 255\]"), (np.zeros((28, 28), bool), "uint8"),
        (np.zeros((28, 28), "c8"), "uint8"), (np.eye(28), "multiply them by 255"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images_are_refused(images, message, network):
    with pytest.raises(InputError, match=message):
        network.predict(images)
