"""The cache: an entry is read as it was written or made again, whatever happened to its file."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from jax_s6 import backend, data
from jax_s6.config import DataConfig
from jax_s6.data.cache import cached
from jax_s6.errors import InputError
from tests.data.samples import Arrays, assert_same, small

KEY = ("mnist", "3.0.1", 64 * "0")
FILE = "mnist-3.0.1-0000000000000000.npz"


def never(scratch: Path, progress) -> tuple[Arrays, int]:
    raise AssertionError("the entry should come from the cache")


def test_cache_gives_back_what_was_put_in():
    arrays = small()
    first = cached(*KEY, lambda scratch, progress: (arrays, 10))
    second = cached(*KEY, never)
    assert (second.num_classes, second.checksum) == (10, first.checksum)
    assert_same(second, arrays)


def forge(path: Path) -> None:
    """Change an image, in a file whose own checks all pass."""
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
    cached(*KEY, lambda scratch, progress: (arrays, 10))
    damage(tmp_path / "cache" / FILE)
    again = cached(*KEY, lambda scratch, progress: (arrays, 10))
    assert_same(again, arrays)
    [message] = warnings_said()
    assert f"{FILE} is unusable" in message and "\n" not in message
    cached(*KEY, never)


def test_a_killed_preparation_leaves_nothing_that_is_trusted(tmp_path: Path):
    script = """
        import os, signal
        from jax_s6.data.cache import cached
        def make(scratch, progress):
            (scratch / "half").write_text("made")
            os.kill(os.getpid(), signal.SIGKILL)
        cached("mnist", "3.0.1", 64 * "0", make)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)])
    assert killed.returncode == -signal.SIGKILL
    [left] = (tmp_path / "cache").iterdir()
    arrays = small()
    cached(*KEY, lambda scratch, progress: (arrays, 10))
    assert left.exists(), "another process might still be using it"
    os.utime(left, (0, 0))
    cached("kmnist", *KEY[1:], lambda scratch, progress: (arrays, 10))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["k" + FILE, FILE]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"JAX_S6_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"JAX_S6_CACHE": "~/a"}, "/home/someone/a"),
        ({"JAX_S6_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/jax_s6"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/jax_s6"),
        ({}, "/home/someone/.cache/jax_s6"),
    ],
)
def test_cache_folder(environment, folder, monkeypatch):
    for name in ("JAX_S6_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/someone"} | environment).items():
        monkeypatch.setenv(name, value)
    assert backend.cache_folder() == Path(folder)


def test_two_processes_prepare_at_the_same_moment(version: Path, tmp_path: Path):
    script = """
        import sys, time
        from pathlib import Path
        from jax_s6 import data
        from jax_s6.data import tfds_read
        from jax_s6.config import DataConfig
        here, other, folder = map(Path, sys.argv[1:])
        read = tfds_read.read_prepared
        def together(*args):
            here.touch()
            while not other.exists():
                time.sleep(0.01)
            return read(*args)
        tfds_read.read_prepared = together
        print(data.load(DataConfig(data_dir=folder)).checksum)
    """
    marks = [str(tmp_path / "one"), str(tmp_path / "two")]
    command = [sys.executable, "-c", textwrap.dedent(script)]
    started = [
        subprocess.Popen([*command, *order, str(version)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for order in (marks, marks[::-1])
    ]
    results = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0], results
    assert results[0] == results[1] and results[0][1] == ""
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_unwritable_cache_is_only_a_warning(version: Path, stock, tmp_path: Path, monkeypatch, warnings_said):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_S6_CACHE", str(tmp_path / "file" / "cache"))
    assert_same(data.load(DataConfig(data_dir=version)), stock[1])
    [message] = warnings_said()
    assert str(tmp_path / "file") in message and message.endswith("with JAX_S6_CACHE")


def test_no_folder_to_work_in_is_an_error(version: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_S6_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="nor is there a temporary folder; .* JAX_S6_CACHE"):
        data.load(DataConfig(data_dir=version))


def test_without_a_home_no_folder_named_tilde_appears(version: Path, stock, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.delenv("JAX_S6_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert_same(data.load(DataConfig(data_dir=version)), stock[1])
    assert "there is no home folder" in caplog.text and not (tmp_path / "~").exists()
    before = jax.config.jax_compilation_cache_dir
    backend.use_compilation_cache(backend.cache_folder())
    assert jax.config.jax_compilation_cache_dir == before, "JAX would make a folder that is called ~"


def test_progress_is_for_terminals(version: Path, tmp_path: Path, monkeypatch, capfd):
    data.load(DataConfig(data_dir=version))
    assert capfd.readouterr() == ("", "")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    data.load(DataConfig(data_dir=version))
    out, err = capfd.readouterr()
    assert out == "" and "mnist: reading" in err
