"""The cache: what was put in or nothing, whatever happened to its files."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jax_s6.data import cache as data_cache
from jax_s6.data import idx


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_S6_CACHE", str(tmp_path / "cache"))


def small() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 20)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 10, count).astype(np.int32)
    return arrays


def never(scratch: Path, progress) -> tuple[dict[str, np.ndarray], int]:
    raise AssertionError("the cache has the answer")


def test_cache_gives_back_what_was_put_in():
    arrays = small()
    first = data_cache.cached("key", lambda scratch, progress: (arrays, 10))
    second = data_cache.cached("key", never)
    assert (second.num_classes, second.checksum) == (10, first.checksum)
    for role in idx.ROLES:
        np.testing.assert_array_equal(second.arrays[role], arrays[role])
        assert second.arrays[role].dtype == arrays[role].dtype


def forge(path: Path) -> None:
    """Another image, in a file whose own checks all pass."""
    with np.load(path) as file:
        fields = dict(file)
    fields["train_images"][0, 0, 0, 0] ^= 1
    np.savez(path, **fields)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        forge,
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a zip archive"),
        lambda path: np.savez(path, something=np.zeros(3)),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
    ],
)
def test_a_damaged_entry_is_made_again(damage, tmp_path: Path, warnings_said):
    arrays = small()
    data_cache.cached("key", lambda scratch, progress: (arrays, 10))
    damage(tmp_path / "cache" / "key.npz")
    again = data_cache.cached("key", lambda scratch, progress: (arrays, 10))
    np.testing.assert_array_equal(again.arrays["train_images"], arrays["train_images"])
    [message] = warnings_said()
    assert "key.npz is unusable" in message and "\n" not in message
    data_cache.cached("key", never)


def test_a_killed_preparation_leaves_nothing_that_is_trusted(tmp_path: Path):
    script = """
        import os, signal
        from jax_s6 import data_cache
        def make(scratch, progress):
            (scratch / "half").write_text("made")
            os.kill(os.getpid(), signal.SIGKILL)
        data_cache.cached("key", make)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)])
    assert killed.returncode == -signal.SIGKILL
    [left] = (tmp_path / "cache").iterdir()
    arrays = small()
    data_cache.cached("key", lambda scratch, progress: (arrays, 10))
    assert left.exists(), "it could be another process at work"
    os.utime(left, (0, 0))
    data_cache.cached("another", lambda scratch, progress: (arrays, 10))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["another.npz", "key.npz"]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"JAX_S6_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"JAX_S6_CACHE": "~/a"}, "/home/someone/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/jax_s6"),
        ({}, "/home/someone/.cache/jax_s6"),
    ],
)
def test_cache_folder(environment, folder, monkeypatch):
    for name in ("JAX_S6_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/someone"} | environment).items():
        monkeypatch.setenv(name, value)
    assert data_cache.cache_folder() == Path(folder)
