"""The network and its layers: sizes, statistics, dropout, and independence of how the batch is split."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6 import backend
from jax_s6.config import ModelConfig
from jax_s6.network import layers
from jax_s6.network.net import NUM_PARAMS, Net, create, init, layer_table
from jax_s6.training.trainer import make_mesh


@pytest.fixture(scope="module")
def variables():
    return jax.jit(init)(jax.random.key(0))


def images(count, size=28):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 1), np.uint8)


@functools.cache
def training_pass(**settings):
    """Return a compiled function from variables, images and dropout keys to logits and the new statistics."""
    net, rates = Net(**settings), (0.25, 0.25, 0.25)
    return jax.jit(lambda variables, x, keys=None: net.apply(variables, x, True, rates, keys, mutable=["batch_stats"]))


def assert_close(got, want, rtol=1e-4, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), got, want)


def test_parameters_in_all_and_in_each_layer(variables):
    sizes = {
        block: {layer: sum(x.size for x in jax.tree.leaves(leaves)) for layer, leaves in layers.items()}
        for block, layers in variables["params"].items()
    }
    inner = {"conv_0": 2320, "norm_0": 32, "conv_1": 2320, "norm_1": 32}
    assert sizes == {"conv1": inner | {"conv_0": 160}, "conv2": inner, "conv3": inner}
    assert sum(sum(block.values()) for block in sizes.values()) == NUM_PARAMS == 11_952


def test_layer_table_matches_the_reference():
    rows = [(block, shape, count) for block, _, shape, count in layer_table()]
    assert rows == [("conv1", "7x7x16", 2544), ("conv2", "2x2x16", 4704), ("conv3", "1x1x16", 4704), ("head", "16", 0)]


def test_initial_weights_are_uniform_within_pytorchs_bound(variables):
    for block, fan_in in (("conv1", 9), ("conv2", 144)):
        kernel = np.asarray(variables["params"][block]["conv_0"]["kernel"])
        assert np.abs(kernel).max() <= fan_in**-0.5
        assert kernel.std() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.1)
        assert np.abs(variables["params"][block]["conv_0"]["bias"]).max() <= fan_in**-0.5


@pytest.mark.parametrize("size", [27, 12])  # 28 is compared with PyTorch
def test_all_convolutions_give_the_same_network(variables, size):
    choices = ({}, {"few_operations": True}, {"convolution": "xla"})
    want, *others = (training_pass(**settings)(variables, images(6, size)) for settings in choices)
    for got in others:
        assert_close(got, want)


def test_running_variance_is_unbiased(variables):
    @jax.jit
    def apply(images):
        collections = ["batch_stats", "intermediates"]
        return Net().apply(variables, images, train=True, mutable=collections, capture_intermediates=True)[1]

    updates = apply(images(2))
    [relu] = updates["intermediates"]["conv3"]["conv_1"]["__call__"][0]
    # The last layer sees 1x1 pixels of 2 images: its unbiased variance is twice the biased one.
    want = 0.9 * 1.0 + 0.1 * np.var(relu, axis=(1, 2, 3), ddof=1)
    np.testing.assert_allclose(updates["batch_stats"]["conv3"]["norm_1"]["var"], want, rtol=1e-5)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    x, keys = jnp.ones((16, 7, 7, 64)), jax.random.split(jax.random.key(0), 64)
    y, whole = jax.lax.split(x, (32, 32), 3), layers.dropout((x,), jnp.float32(0.25), keys)[0]
    y = jnp.concatenate(layers.dropout(tuple(y), jnp.float32(0.25), keys), -1)
    assert np.array_equal(y, whole), "the masks depend on the chunks"
    assert float((y == 0).mean()) == pytest.approx(0.25, abs=0.01)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.01)
    assert not np.array_equal(y[..., 0], y[..., 1]), "two images have the same mask"


def test_dropout_acts_on_the_logits_and_is_off_without_keys(variables):
    logits, _ = training_pass()(variables, images(8))
    assert np.all(logits != 0), "dropout without keys"
    logits, _ = training_pass()(variables, images(8), jax.random.split(jax.random.key(0), 8))
    assert float((logits == 0).mean()) == pytest.approx(0.25, abs=0.12)


def test_batch_split_over_devices_normalises_by_the_whole_batch(variables):
    mesh = make_mesh(jax.devices()[:4])
    spec, whole = jax.sharding.PartitionSpec("batch"), jax.sharding.PartitionSpec()
    apply = functools.partial(training_pass(axis_name="batch"), variables)
    split = jax.jit(jax.shard_map(apply, mesh=mesh, in_specs=spec, out_specs=(spec, whole), check_vma=False))
    assert_close(split(images(8)), training_pass()(variables, images(8)))


@functools.cache
def gradient(**settings):
    """Return a compiled function from variables and images to a loss, logits, new statistics and gradients."""
    net = Net(**settings)

    def loss(params, variables, images):
        logits, updates = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return (logits**2).mean(), (logits, updates)

    return jax.jit(lambda variables, x: jax.value_and_grad(loss, has_aux=True)(variables["params"], variables, x))


@pytest.mark.parametrize("recompute", [False, True])
def test_batch_in_chunks_is_the_whole_batch(variables, recompute):
    got = gradient(recompute=recompute, num_chunks=2)(variables, images(8))
    assert_close(got, gradient()(variables, images(8)))


def test_statistics_of_chunks_are_the_batchs():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(16, 2, 2, 8)), jnp.float32)
    norm = layers.BatchNorm(None)
    variables = norm.init(jax.random.key(0), (x,), train=False)
    batches = tuple(jnp.split(x, 4, -1)), (x,)
    got, want = (norm.apply(variables, chunks, train=True, mutable=["batch_stats"]) for chunks in batches)
    assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_only_training_takes_chunks(variables):
    def outputs(train, count=12):
        net, keep = Net(num_chunks=4), ["batch_stats", "intermediates"]
        seen = jax.eval_shape(
            lambda x: net.apply(variables, x, train=train, mutable=keep, capture_intermediates=True)[1], images(count)
        )
        return jax.tree.map(jnp.shape, seen["intermediates"]["conv1"]["conv_1"]["__call__"][0])

    assert outputs(True) == ((16, 14, 14, 3),) * 4
    assert outputs(False) == ((16, 14, 14, 12),)


def test_platform_and_batch_size_choose_the_chunks():
    sizes = (32, 64, 127, 128, 192, 300, 1000, 1024, 65_536)
    assert [backend.num_chunks(size, "cpu") for size in sizes] == [1, 1, 1, 2, 2, 4, 8, 16, 16]
    assert {backend.num_chunks(size, platform) for size in sizes for platform in ("cuda", "tpu")} == {1}


def test_platform_chooses_fewer_operations():
    made = {platform: create(ModelConfig(), platform=platform) for platform in ("cpu", "gpu", "cuda", "tpu")}
    assert [name for name, net in made.items() if net.few_operations] == ["gpu", "cuda"]


@pytest.mark.parametrize("few_operations", [False, True])
def test_small_images_are_convolved_in_one_product_where_operations_cost(variables, few_operations):
    net = Net(few_operations=few_operations)
    text = jax.jit(net.apply).lower(variables, images(8)).as_text()
    sizes = [int(size) for size in re.findall(r"dot_general.*\(tensor<16x144xf32>, tensor<144x(\d+)xf32>", text)]
    assert sizes == ([7 * 7 * 8, 4 * 4 * 8, 2 * 2 * 8, 1 * 1 * 8] if few_operations else [])
    written = re.findall(r"optimization_barrier .*: tensor<(.*)xf32>", text)
    assert ("1x28x28x8" in written) == few_operations


def test_platform_chooses_the_convolution():
    assert create(ModelConfig(), platform="cpu").convolution == "matmul"
    assert create(ModelConfig(), platform="cuda").convolution == "matmul"
    assert create(ModelConfig(), platform="tpu").convolution == "xla"
    assert create(ModelConfig(convolution="matmul"), platform="tpu").convolution == "matmul"
    assert create(ModelConfig(precision="bf16")).dtype == jnp.bfloat16
