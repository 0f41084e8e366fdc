"""A folder with two checkpoints."""

import numpy as np
import pytest

from jax_s6.runs.checkpoints import Store

IDENTITY = {"learning_rate": 0.1, "grid": (1, 2), "data": "1234"}


def make_arrays(seed):
    values = np.random.default_rng(seed).normal(size=(1, 300)).astype(np.float32)
    special = np.array([np.nan, -0.0, np.inf, 5e-324], np.float64)
    more = {"state.params.bias": values[:, 5:8].T, "scalar": np.array(seed, np.float32), "none": np.zeros((0, 2))}
    more["columns"] = np.arange(6, dtype=np.uint32).reshape(2, 3).T
    return {"state.params.kernel": values, "state.step": np.full(1, seed, np.int32), "metrics": special, **more}


@pytest.fixture
def folder(tmp_path):
    """Holds checkpoints of epochs 1 and 2."""
    store = Store(tmp_path / "checkpoints", IDENTITY)
    store.clear()
    for epoch in (1, 2):
        store.save(epoch, make_arrays(epoch), {"history": [{"loss": 0.1 + epoch, "nan": float("nan")}]})
    store.wait()
    return store.folder


@pytest.fixture
def newest(folder):
    return folder / "2.safetensors"


def assert_is_epoch(checkpoint, epoch):
    assert checkpoint.epoch == epoch and checkpoint.about["history"][0]["loss"] == 0.1 + epoch
    assert np.isnan(checkpoint.about["history"][0]["nan"])
    assert checkpoint.arrays.keys() == make_arrays(epoch).keys()
    for name, array in make_arrays(epoch).items():
        assert checkpoint.arrays[name].dtype == array.dtype and checkpoint.arrays[name].shape == array.shape
        assert checkpoint.arrays[name].tobytes() == array.tobytes(), name
