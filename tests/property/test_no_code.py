"""No file that is read can run code."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import jax_s6
from jax_s6 import cli, config
from jax_s6.data import idx
from jax_s6.data.cache import cached
from jax_s6.errors import InputError
from jax_s6.network import weights
from jax_s6.runs import checkpoints as checkpoint
from jax_s6.runs.checkpoints import Store

PACKAGE = Path(jax_s6.__file__).parent
RUNS_CODE = re.compile(
    r"\b(pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\b|\btorch\.load|allow_pickle\s*=\s*True"
    r"|(?<![.\w])(eval|exec|__import__)\(|yaml\.(unsafe_|full_)?load\(|shell\s*=\s*True|os\.system"
)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path):
    path = tmp_path / "code ran"
    pickle.loads(pickle.dumps(Malicious(path)))
    assert path.exists(), "unpickling does not create the file, so this test checks nothing"
    path.unlink()
    yield path
    assert not path.exists()


def test_package_reads_no_pickle():
    for path in PACKAGE.rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            code = line.partition("#")[0]
            assert not RUNS_CODE.search(code), f"{path.name}:{number}: {line}"


@pytest.mark.parametrize("protocol", [0, 5])
def test_pickles_are_refused(marker, tmp_path, protocol):
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps(Malicious(marker), protocol))
    with pytest.raises(InputError):
        cli.read_config(path)
    with pytest.raises(InputError):
        weights.load(path)
    with pytest.raises(InputError):
        idx.read_array(path, ())


def test_cached_object_arrays_are_made_again(marker, monkeypatch, tmp_path, caplog, bars):
    monkeypatch.setenv("JAX_S6_CACHE", str(tmp_path))
    trap = np.array([Malicious(marker)], object)
    np.savez(tmp_path / "mnist-1-0.npz", **{role: trap for role in idx.ROLES}, num_classes=10, checksum="")
    arrays = {role: getattr(bars, role) for role in idx.ROLES}
    assert cached("mnist", "1", "0", lambda scratch, progress: (arrays, 10)).num_classes == 10
    assert "Object arrays cannot be loaded" in caplog.text


def test_pickles_in_a_checkpoint_are_not_read(marker, tmp_path):
    store = Store(tmp_path / "checkpoints", {})
    store.clear()
    store.save(1, {"step": np.ones(1)}, {})
    store.wait()
    path = store.folder / "1.safetensors"
    kept = path.read_bytes()
    path.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(InputError, match="damaged"):
        Store(store.folder, {}).load()
    path.write_bytes(kept)
    assert Store(store.folder, {}).load() is not None


def test_checkpoint_outside_its_folder_is_not_one(tmp_path):
    """Only names that are numbers count, so none can lead elsewhere."""
    folder = tmp_path / "checkpoints"
    for name in ("..1", "-1", "+1", "¹", "1 ", "0x1", ""):
        (folder / f"{name}.safetensors").mkdir(parents=True)
    assert checkpoint.epochs(folder) == []


def test_config_cannot_name_code():
    text = config.to_json(config.RECIPES["s6"]).replace('"sgd"', "\"__import__('os').getcwd()\"")
    with pytest.raises(InputError, match="optimizer must be one of sgd, adamw"):
        config.from_json(text, "config")
