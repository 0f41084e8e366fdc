"""The network: sizes, statistics, dropout, and independence of how the batch is split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6 import model
from jax_s6.config import ModelConfig
from jax_s6.loop import make_mesh


@pytest.fixture(scope="module")
def variables():
    return model.init(jax.random.key(0))


def images(count, size=28):
    return jax.random.randint(jax.random.key(1), (count, size, size, 1), 0, 256).astype(jnp.uint8)


def test_parameters_in_all_and_in_each_layer(variables):
    sizes = {
        block: {layer: sum(x.size for x in jax.tree.leaves(leaves)) for layer, leaves in layers.items()}
        for block, layers in variables["params"].items()
    }
    inner = {"conv_0": 2320, "norm_0": 32, "conv_1": 2320, "norm_1": 32}
    assert sizes == {"conv1": inner | {"conv_0": 160}, "conv2": inner, "conv3": inner}
    assert sum(sum(block.values()) for block in sizes.values()) == model.NUM_PARAMS == 11_952


def test_layer_table_matches_the_reference():
    rows = [(block, shape, count) for block, _, shape, count in model.layer_table()]
    assert rows == [("conv1", "7x7x16", 2544), ("conv2", "2x2x16", 4704), ("conv3", "1x1x16", 4704), ("head", "16", 0)]


def test_initial_weights_are_uniform_within_pytorchs_bound(variables):
    for block, fan_in in (("conv1", 9), ("conv2", 144)):
        kernel = np.asarray(variables["params"][block]["conv_0"]["kernel"])
        assert np.abs(kernel).max() <= fan_in**-0.5
        assert kernel.std() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.1)
        assert np.abs(variables["params"][block]["conv_0"]["bias"]).max() <= fan_in**-0.5


@pytest.mark.parametrize("size", [28, 27, 12])
def test_both_convolutions_give_the_same_network(variables, size):
    outputs = []
    for convolution in ("matmul", "xla"):
        net = model.Net(convolution)
        logits, updates = net.apply(variables, images(6, size), train=True, mutable=["batch_stats"])
        outputs.append((logits, updates["batch_stats"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *outputs)


def test_running_variance_is_unbiased(variables):
    _, updates = model.Net().apply(variables, images(2), train=True, mutable=["batch_stats"])
    # The last layer sees 1x1 pixels of 2 images: its unbiased variance is twice the biased one.
    halves = [model.Net().apply(variables, images(2)[i : i + 1], train=False) for i in (0, 1)]
    assert halves[0].shape == (1, 16)
    biased = model.Net().apply(
        variables, images(2), train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True
    )[1]
    relu = biased["intermediates"]["conv3"]["conv_1"]["__call__"][0]
    want = 0.9 * 1.0 + 0.1 * np.var(np.asarray(relu), axis=(1, 2, 3), ddof=1)
    np.testing.assert_allclose(updates["batch_stats"]["conv3"]["norm_1"]["var"], want, rtol=1e-5)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    x, keys = jnp.ones((16, 7, 7, 64)), jax.random.split(jax.random.key(0), 64)
    y = model.Dropout(jnp.float32(0.25)).apply({}, x, keys)
    assert float((y == 0).mean()) == pytest.approx(0.25, abs=0.01)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.01)
    assert not np.array_equal(y[..., 0], y[..., 1]), "two images have the same mask"


def test_dropout_differs_between_blocks_and_is_off_in_evaluation(variables):
    keys = jax.random.split(jax.random.key(0), 8)
    rates = (0.25, 0.25, 0.25)
    net = model.Net()
    plain = net.apply(variables, images(8))
    assert np.array_equal(plain, net.apply(variables, images(8), dropout_rates=rates))
    logits, _ = net.apply(variables, images(8), True, rates, keys, mutable=["batch_stats"])
    assert float((logits == 0).mean()) == pytest.approx(0.25, abs=0.12)


def test_batch_split_over_devices_normalises_by_the_whole_batch(variables):
    mesh = make_mesh(jax.devices()[:4])
    spec, whole = jax.sharding.PartitionSpec("batch"), jax.sharding.PartitionSpec()
    net = model.Net(axis_name="batch")

    def apply(images):
        return net.apply(variables, images, train=True, mutable=["batch_stats"])

    split = jax.shard_map(apply, mesh=mesh, in_specs=spec, out_specs=(spec, whole), check_vma=False)
    want = model.Net().apply(variables, images(8), train=True, mutable=["batch_stats"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), jax.jit(split)(images(8)), want)


def test_platform_chooses_the_convolution():
    assert model.create(ModelConfig(), platform="cpu").convolution == "matmul"
    assert model.create(ModelConfig(), platform="cuda").convolution == "xla"
    assert model.create(ModelConfig(), platform="tpu").convolution == "xla"
    assert model.create(ModelConfig(convolution="matmul"), platform="tpu").convolution == "matmul"
    assert model.create(ModelConfig(precision="bf16")).dtype == jnp.bfloat16
