"""The convolutions and the pooling against XLA's own, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_s6.network import convolutions as ops

TOLERANCE = {jnp.float32: 1e-5, jnp.bfloat16: 1e-2}  # relative, of the norm; bfloat16 has 8 bits


def reference(x, kernel, stride):
    layout = ("CHWN", "HWIO", "CHWN")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout, precision="highest"
    )


def to_phases(x):
    return jnp.stack([x[:, p::2, q::2] for p in (0, 1) for q in (0, 1)])


def random(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def assert_close(got, want, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == jnp.float32
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def value_and_vjp(function, *args):
    """The value, and the gradients against a fixed random cotangent."""

    @jax.jit
    def run(dy, *args):
        y, vjp = jax.vjp(function, *args)
        return y, vjp(dy)

    return run(random(9, jax.eval_shape(function, *args).shape), *args)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("convolve", [ops.conv3x3, ops.conv3x3_im2col, ops.conv3x3_xla])
@pytest.mark.parametrize(("size", "stride"), [(28, 1), (28, 2), (7, 1), (7, 2), (4, 2), (2, 1), (2, 2), (1, 1)])
def test_convolution_and_its_gradients(convolve, size, stride, dtype):
    x, kernel = random(0, (16, size, size, 5)), random(1, (3, 3, 16, 16))
    got = value_and_vjp(lambda x, k: convolve(x, k, stride, dtype), x, kernel)
    assert_close(got, value_and_vjp(lambda x, k: reference(x, k, stride), x, kernel), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_convolution_to_phases(dtype):
    x, kernel = random(0, (1, 28, 28, 5)), random(1, (3, 3, 1, 16))
    got = value_and_vjp(lambda k: ops.conv3x3_to_phases(x, k, dtype), kernel)
    want = value_and_vjp(lambda k: to_phases(reference(x, k, 1)), kernel)
    assert_close(got, want, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [2, 6, 28])
def test_convolution_from_phases(size, dtype):
    x, kernel = to_phases(random(0, (16, size, size, 5))), random(1, (3, 3, 16, 16))

    def whole(phases, kernel):
        rows = phases.reshape(2, 2, 16, size // 2, size // 2, 5).transpose(2, 3, 0, 4, 1, 5)
        return reference(rows.reshape(16, size, size, 5), kernel, 2)

    got = value_and_vjp(lambda x, k: ops.conv3x3_from_phases(x, k, dtype), x, kernel)
    assert_close(got, value_and_vjp(whole, x, kernel), TOLERANCE[dtype])


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_weights_are_gathered_on_cpu_only(platform):
    x, kernel = jnp.zeros((16, 6, 6, 5)), jnp.zeros((3, 3, 16, 16))
    exported = jax.export.export(jax.jit(lambda x, k: ops.conv3x3_im2col(x, k, 1)), platforms=[platform])(x, kernel)
    assert ("stablehlo.gather" in exported.mlir_module()) == (platform == "cpu")


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_agree_under_vmap(stride):
    x, kernels = random(0, (3, 16, 6, 6, 5)), random(1, (3, 3, 3, 16, 16))
    results = [
        value_and_vjp(jax.vmap(lambda x, k, f=convolve: f(x, k, stride)), x, kernels)
        for convolve in (ops.conv3x3_xla, ops.conv3x3, ops.conv3x3_im2col)
    ]
    for result in results[1:]:
        assert_close(result, results[0], 1e-5)


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 2]), st.integers(1, 4))
def test_convolution_of_any_shape(height, width, channels, stride, batch):
    x, kernel = random(0, (channels, height, width, batch)), random(1, (3, 3, channels, 4))
    got = value_and_vjp(lambda x, k: ops.conv3x3(x, k, stride), x, kernel)
    assert_close(got, value_and_vjp(lambda x, k: reference(x, k, stride), x, kernel), 1e-5)


@pytest.mark.parametrize("size", [2, 4, 5, 14])
def test_max_pool_gives_the_gradient_to_the_first_of_equals(size):
    x = jax.random.randint(jax.random.key(0), (3, size, size, 4), 0, 3).astype(jnp.float32)  # many ties
    y, (dx,) = value_and_vjp(ops.max_pool, x)
    dy, want_y, want_dx = random(9, y.shape), np.zeros(y.shape), np.zeros(x.shape)
    for c, i, j, b in np.ndindex(y.shape):
        window = np.asarray(x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, b])
        row, column = np.unravel_index(window.argmax(), (2, 2))
        want_y[c, i, j, b] = window.max()
        want_dx[c, 2 * i + row, 2 * j + column, b] = dy[c, i, j, b]
    np.testing.assert_array_equal(y, want_y)
    np.testing.assert_array_equal(dx, want_dx.astype(np.float32))
