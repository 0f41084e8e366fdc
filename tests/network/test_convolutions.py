"""The convolutions and the pooling against their definitions in float64, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_s6.network import convolutions

TOLERANCE = {jnp.float32: 1e-5, jnp.bfloat16: 1e-2}  # relative, of the norm; bfloat16 has 8 bits
CONVOLUTIONS = [convolutions.conv3x3, convolutions.conv3x3_im2col, convolutions.conv3x3_xla]


def reference(x, kernel, stride, dy):
    """The result of a convolution, and its gradients: of the input, and of the kernel."""
    height, width = x.shape[1:3]
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y, dpadded, dkernel = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j in np.ndindex(3, 3):
        window = slice(None), slice(i, i + height, stride), slice(j, j + width, stride)
        y += np.tensordot(kernel[i, j].T, padded[window], 1)
        dpadded[window] += np.tensordot(kernel[i, j], dy, 1)
        dkernel[i, j] = np.tensordot(padded[window], dy, ((1, 2, 3), (1, 2, 3)))
    return y, dpadded[:, 1:-1, 1:-1], dkernel


def to_phases(x):
    return np.stack([x[:, p::2, q::2] for p in (0, 1) for q in (0, 1)])


def from_phases(phases):
    _, channels, height, width, batch = phases.shape
    rows = phases.reshape(2, 2, channels, height, width, batch).transpose(2, 3, 0, 4, 1, 5)
    return rows.reshape(channels, 2 * height, 2 * width, batch)


def random(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def assert_close(got, want, tolerance):
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == jnp.float32
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def value_and_vjp(function, *args):
    """The cotangent, which is random but fixed; then the value and the gradients, one tuple of arrays."""

    @jax.jit
    def run(dy, *args):
        y, vjp = jax.vjp(function, *args)
        return y, *vjp(dy)

    dy = random(9, jax.eval_shape(function, *args).shape)
    return dy, jax.device_get(run(dy, *args))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("convolve", CONVOLUTIONS)
@pytest.mark.parametrize(("size", "stride"), [(28, 1), (28, 2), (7, 1), (7, 2), (4, 2), (2, 1), (2, 2), (1, 1)])
def test_convolution_and_its_gradients(convolve, size, stride, dtype):
    x, kernel = random(0, (16, size, size, 5)), random(1, (3, 3, 16, 16))
    dy, got = value_and_vjp(lambda x, k: convolve(x, k, stride, dtype), x, kernel)
    assert_close(got, reference(x, kernel, stride, dy), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_convolution_to_phases(dtype):
    x, kernel = random(0, (1, 28, 28, 5)), random(1, (3, 3, 1, 16))
    dy, got = value_and_vjp(lambda k: convolutions.conv3x3_to_phases(jnp.asarray(x), k, dtype), kernel)
    y, _, dkernel = reference(x, kernel, 1, from_phases(dy))
    assert_close(got, (to_phases(y), dkernel), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [2, 6, 28])
def test_convolution_from_phases(size, dtype):
    x, kernel = random(0, (16, size, size, 5)), random(1, (3, 3, 16, 16))
    dy, got = value_and_vjp(lambda x, k: convolutions.conv3x3_from_phases(x, k, dtype), to_phases(x), kernel)
    y, dx, dkernel = reference(x, kernel, 2, dy)
    assert_close(got, (y, to_phases(dx), dkernel), TOLERANCE[dtype])


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_weights_are_gathered_on_cpu_only(platform):
    x, kernel = np.zeros((16, 6, 6, 5), np.float32), np.zeros((3, 3, 16, 16), np.float32)
    function = jax.jit(lambda x, k: convolutions.conv3x3_im2col(x, k, 1))
    exported = jax.export.export(function, platforms=[platform])(x, kernel)
    assert ("stablehlo.gather" in exported.mlir_module()) == (platform == "cpu")


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_are_the_same_under_vmap(stride):
    x, kernels = random(0, (3, 16, 6, 6, 5)), random(1, (3, 3, 3, 16, 16))
    for convolve in CONVOLUTIONS:
        dy, got = value_and_vjp(jax.vmap(lambda x, k, f=convolve: f(x, k, stride)), x, kernels)
        want = [reference(*each) for each in zip(x, kernels, [stride] * 3, dy, strict=True)]
        assert_close(got, [np.stack(arrays) for arrays in zip(*want, strict=True)], 1e-5)


@settings(max_examples=4)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 2]), st.integers(1, 4))
def test_convolution_of_any_shape(height, width, channels, stride, batch):
    x, kernel = random(0, (channels, height, width, batch)), random(1, (3, 3, channels, 4))
    dy, got = value_and_vjp(lambda x, k: convolutions.conv3x3(x, k, stride), x, kernel)
    assert_close(got, reference(x, kernel, stride, dy), 1e-5)


@pytest.mark.parametrize("size", [2, 4, 5, 14])
def test_max_pool_gives_the_gradient_to_the_first_of_equals(size):
    x = np.random.default_rng(0).integers(0, 3, (3, size, size, 4)).astype(np.float32)  # many ties
    dy, (y, dx) = value_and_vjp(convolutions.max_pool, x)
    want_y, want_dx = np.zeros(y.shape), np.zeros(x.shape)
    for c, i, j, b in np.ndindex(y.shape):
        window = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, b]
        row, column = np.unravel_index(window.argmax(), (2, 2))
        want_y[c, i, j, b] = window.max()
        want_dx[c, 2 * i + row, 2 * j + column, b] = dy[c, i, j, b]
    np.testing.assert_array_equal(y, want_y)
    np.testing.assert_array_equal(dx, want_dx.astype(np.float32))
