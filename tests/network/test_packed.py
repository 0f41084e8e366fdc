"""Lanes side by side as channels are each lane alone: results, statistics and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6.network import packed
from jax_s6.network.net import Net, init
from jax_s6.network.packed import Packing, layout, operations

BATCH = 8
RATES = (0.1, 0.2, 0.0)


@pytest.fixture(scope="module")
def variables():
    """Those of four networks, with maps and statistics that are not trivial; one scale is negative."""

    def perturb(x, key):
        return x + 0.3 * jax.random.uniform(key, x.shape, minval=-1.0)

    lanes = [init(jax.random.key(lane)) for lane in range(4)]
    tree = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    tree = structure.unflatten([perturb(x, key) for x, key in zip(leaves, keys, strict=True)])
    tree["params"]["conv1"]["norm_1"]["scale"] = tree["params"]["conv1"]["norm_1"]["scale"].at[1, 0].set(-0.7)
    return tree


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, BATCH, 28, 28, 1), dtype=np.uint8))


KEYS = jax.random.split(jax.random.key(1), (4, BATCH))


def alone(variables, images, keys, train, dtype):
    """Each lane by itself: logits, statistics, and the gradient of a sum that weights the logits unequally."""

    def lane(variables, images, keys):
        def loss(params):
            options = {"train": train, "dropout_rates": RATES, "mutable": ["batch_stats"]}
            inputs = {"params": params, "batch_stats": variables["batch_stats"]}
            net = Net(convolution="xla", dtype=dtype)
            logits, updates = net.apply(inputs, images, dropout_keys=keys if train else None, **options)
            return (logits * jnp.cos(jnp.arange(logits.size).reshape(logits.shape))).sum(), (logits, updates)

        grads, (logits, updates) = jax.grad(loss, has_aux=True)(variables["params"])
        return logits, updates["batch_stats"], grads

    return jax.jit(jax.vmap(lane))(variables, images, keys)


@pytest.fixture(scope="module")
def exact(variables, images):
    """Each lane by itself, in float32."""
    return alone(variables, images, KEYS, True, jnp.float32)


def together(variables, images, keys, train, dtype, groups=1):
    def loss(params):
        options = {"train": train, "dropout_rates": RATES, "dropout_keys": keys if train else None}
        inputs = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, stats = packed.apply(inputs, images, Packing(len(images), dtype, None, groups), **options)
        weights = jnp.cos(jnp.arange(logits[0].size).reshape(logits[0].shape))
        return (logits * weights[None]).sum(), (logits, stats)

    grads, (logits, stats) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    return logits, stats, grads


def assert_close(got, want, tolerance):
    """Compare trees; the tolerance is relative to the largest number of each array."""
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        scale = float(jnp.abs(y).max())
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("groups", [1, 2])
def test_float32_packed_is_each_lane_alone(variables, images, exact, groups):
    assert_close(together(variables, images, KEYS, True, jnp.float32, groups), exact, 2e-5)


def test_bfloat16_packed_is_as_close_to_float32_as_one_lane_in_bfloat16(variables, images, exact):
    lanes = alone(variables, images, KEYS, True, jnp.bfloat16)
    packed_lanes = together(variables, images, KEYS, True, jnp.bfloat16)

    def error(got):
        """The mean over all arrays of the relative error: single arrays scatter, as rounding moves ReLUs."""
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(exact), strict=True)
        return np.mean([float(jnp.linalg.norm((x - y).ravel()) / jnp.linalg.norm(y.ravel())) for x, y in pairs])

    assert error(packed_lanes) <= 1.3 * error(lanes)


@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_operations_and_their_gradients_round_only_their_factors_and_results(stride):
    rng = np.random.default_rng(3)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.bfloat16).astype(jnp.float32)

    x, kernels, bias, weights = draw(16, 8, 8, 32), draw(2, 3, 3, 16, 16), draw(1, 1, 1, 32), draw(2, 32)

    def gradients(dtype):
        packing = Packing(2, dtype, None)

        def value(x, kernels, bias):
            y = operations.convolve(x.astype(dtype), kernels, stride, packing)
            z, moments = operations.bias_relu(y, bias, jnp.ones_like(bias))
            return (z.astype(jnp.float32) * weights[:1, None, None]).sum() + (moments * weights).sum()

        return jax.value_and_grad(value, (0, 1, 2))(x, kernels, bias)

    for got, want in zip(*(jax.tree.leaves(gradients(dtype)) for dtype in (jnp.bfloat16, jnp.float32)), strict=True):
        assert got.dtype == jnp.float32
        assert jnp.linalg.norm((got - want).ravel()) <= 0.02 * jnp.linalg.norm(want.ravel())


def test_evaluation_packed_is_each_lane_alone(variables, images):
    got = together(variables, images, KEYS, False, jnp.float32)
    assert_close(got[0], alone(variables, images, KEYS, False, jnp.float32)[0], 1e-5)


def test_what_only_a_gpu_runs_is_what_the_others_run():
    x = jnp.asarray(np.random.default_rng(1).integers(0, 3, (2, 5, 7, 8)), jnp.float32)  # many equal pixels
    want, back = jax.vjp(operations.max_pool, x)
    got, back_by_slices = jax.vjp(operations._max_pool_by_slices, x)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(back_by_slices(want)[0], back(want)[0])
    rng, groups = np.random.default_rng(2), 3
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 6, 8, 12), (3, 3, 4, 15)))
    y, back = jax.vjp(lambda x: operations._convolve(2, groups, x, kernel), x)
    np.testing.assert_allclose(operations._gradient_by_phase(groups, kernel, y), back(y)[0], rtol=1e-5, atol=1e-5)
    a, b = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 4), (4, 5)))
    np.testing.assert_allclose(layout.exact_product(a, b), a @ b, rtol=1e-6)
