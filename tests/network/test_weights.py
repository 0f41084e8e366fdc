"""Weights as files: exact round trips, and one-sentence errors for files that do not hold this network."""

import os
import pickle

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jax_s6.errors import InputError
from jax_s6.network import net, weights


@pytest.fixture(scope="module")
def variables():
    """Random numbers, positive as variances are, in the shapes of the network."""
    random = np.random.default_rng(3)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: random.random(leaf.shape, np.float32), shapes)


def test_round_trip_is_exact(variables, tmp_path):
    weights.save(tmp_path / "w.safetensors", variables, {"seed": "3"})
    jax.tree.map(np.testing.assert_array_equal, weights.load(tmp_path / "w.safetensors"), variables)


def test_pytorchs_state_dict_loads_from_safetensors(variables, tmp_path):
    save_file(weights.to_torch_state_dict(variables), tmp_path / "net.safetensors")
    jax.tree.map(np.testing.assert_array_equal, weights.load(tmp_path / "net.safetensors"), variables)


def test_arrays_in_any_order_of_memory_are_written_as_they_are(variables, tmp_path):
    kernels = weights.from_torch_state_dict(weights.to_torch_state_dict(variables))
    assert not kernels["params"]["conv2"]["conv_0"]["kernel"].flags.c_contiguous, "the order that this test is about"
    weights.save(tmp_path / "w.safetensors", kernels)
    jax.tree.map(np.testing.assert_array_equal, weights.load(tmp_path / "w.safetensors"), variables)
    arrays = {"scalar": np.array(3.0, np.float32), "part": np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2]}
    weights.write(tmp_path / "arrays.safetensors", arrays)
    jax.tree.map(np.testing.assert_array_equal, load_file(tmp_path / "arrays.safetensors"), arrays)


def test_loading_does_not_share_memory(variables):
    state_dict = {name: np.array(value) for name, value in weights.to_torch_state_dict(variables).items()}
    loaded = weights.from_torch_state_dict(state_dict)
    state_dict["conv1.2.running_var"][:] = 7
    assert np.all(loaded["batch_stats"]["conv1"]["norm_0"]["var"] < 1)


def test_missing_and_misshapen_arrays_are_named(variables):
    state_dict = weights.to_torch_state_dict(variables)
    with pytest.raises(InputError, match=r"the state dict has no conv3.5.bias"):
        weights.from_torch_state_dict({k: v for k, v in state_dict.items() if k != "conv3.5.bias"})
    with pytest.raises(InputError, match=r"conv2.0.bias in the state dict must have the shape \(16,\), got \(8,\)"):
        weights.from_torch_state_dict(state_dict | {"conv2.0.bias": np.zeros(8, np.float32)})


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["MALICIOUS_TARGET"],)


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MALICIOUS_TARGET", str(tmp_path / "ran"))
    (tmp_path / "net.pt").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        weights.load(tmp_path / "net.pt")
    assert not (tmp_path / "ran").exists()


@given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
def test_damaged_files_are_refused(tmp_path_factory, noise, position, whole):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_file({"conv1.0.weight": np.zeros((16, 1, 3, 3), np.float32)}, path)
    data = path.read_bytes()
    path.write_bytes(noise if whole else data[:position] + noise + data[position + len(noise) :])
    with pytest.raises(InputError):
        weights.load(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("conv1.0.weight", lambda x: x.astype(np.int8), "must hold floating-point numbers, got int8"),
        ("conv3.5.running_var", lambda x: x - 2, "must be >= 0: it is damaged"),
    ],
)
def test_arrays_that_no_run_writes_are_refused(name, change, message, variables, tmp_path):
    state_dict = weights.to_torch_state_dict(variables)
    weights.write(tmp_path / "net.safetensors", {**state_dict, name: change(state_dict[name])})
    with pytest.raises(InputError, match=message):
        weights.load(tmp_path / "net.safetensors")


def test_weights_are_as_readable_as_other_files(variables, tmp_path):
    weights.save(tmp_path / "a.safetensors", variables)
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode
