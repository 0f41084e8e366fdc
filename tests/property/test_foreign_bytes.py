"""Parsers of files from elsewhere get 10,000 damaged inputs; none may crash them, hang them or use much memory.

A parser may return, or raise the one exception that it documents; any other, such as a KeyError, fails the test. The
inputs are valid files with bytes changed, removed or repeated, and random bytes. Most pass a parser's first checks.
"""

import gzip
import hashlib
import json
import random
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from jax_s6 import config
from jax_s6.data import idx
from jax_s6.errors import InputError
from jax_s6.network import weights
from jax_s6.runs import checkpoints
from jax_s6.runs.checkpoints import DamagedError, Store
from tests.conftest import write_idx

MEBIBYTE = 1 << 20
PATIENCE = 10.0  # seconds per input: more is a hang, even on a slow machine
INTERESTING = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"{",
    b"[" * 50,
    b'"',
    b"-1",
    b"1e999",
    b"null",
)


def damage(data: bytes, random_: random.Random) -> bytes:
    """Change a few places of a file, or replace all of it."""
    if random_.random() < 0.05:
        return random_.randbytes(random_.randrange(200))
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 5))):
        # Half of the changes are in the first 64 bytes, where the headers are.
        place = random_.randrange(min(len(changed), 64 if random_.random() < 0.5 else len(changed)) or 1)
        kind = random_.randrange(6)
        if kind == 0 and changed:
            changed[place % len(changed)] ^= 1 << random_.randrange(8)
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            del changed[place : place + random_.randrange(1, 20)]
        elif kind == 3:
            changed[place:place] = random_.choice(INTERESTING)
        elif kind == 4:
            part = random_.choice(INTERESTING)
            changed[place : place + len(part)] = part
        else:
            changed += changed[place : place + 50]
    return bytes(changed)


def write(path: Path, data: bytes) -> None:
    """Write a file anew: to overwrite it would take 5 ms on ext4, which then waits for the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def survive(parse, valid: bytes, count: int, allowed: type[Exception], seed: int) -> int:
    """Give damaged inputs to a parser; return the number of those that it accepted."""
    random_, accepted = random.Random(seed), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        data, begin = damage(valid, random_), time.monotonic()
        try:
            parse(data)
            accepted += 1
        except allowed as error:
            assert str(error) and "\n" not in str(error), (number, error)
        assert time.monotonic() - begin < PATIENCE, number
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 100 * MEBIBYTE, f"{grown} KiB"
    return accepted


@pytest.mark.parametrize("compressed", [False, True])
def test_idx(tmp_path, compressed):
    path = tmp_path / "file"
    write_idx(path, np.random.default_rng(0).integers(0, 9, (2, 28, 28)))
    valid = gzip.compress(path.read_bytes()) if compressed else path.read_bytes()

    def parse(data):
        write(path, data)
        images = idx.read_array(path, (28, 28))
        assert images.shape[1:] == (28, 28) and images.dtype == np.uint8

    accepted = survive(parse, valid, 2000, InputError, seed=compressed)
    assert 0 < accepted < 1900, "files with changed pixels are valid, files with changed headers are not"


def test_config():
    def parse(data):
        try:
            text = data.decode()
        except UnicodeDecodeError:  # cli.read_config reports it
            raise InputError("not text") from None
        assert isinstance(config.from_json(text, "config"), config.TrainConfig)

    assert survive(parse, config.to_json(config.RECIPES["best"]).encode(), 2500, InputError, seed=2) < 2400


@pytest.fixture
def checkpoint(tmp_path):
    store = Store(tmp_path / "checkpoints", {"seed": 0})
    store.clear()
    arrays = {"state.step": np.ones(1, np.int32), "state.kernel": np.ones(3, np.float32)}
    store.save(1, arrays, {"history": []}, 0.5)
    store.wait()
    return store.folder / "1.safetensors"


def sign(content: bytes) -> bytes:
    """Write the correct checksum into a checkpoint, as a forger can; return it unchanged if it has no place for one."""
    parts = checkpoints._DIGEST.split(content, maxsplit=1)
    return hashlib.sha256(parts[0] + parts[2]).hexdigest().encode().join(parts[::2]) if len(parts) == 3 else content


def test_checkpoint(checkpoint):
    """The checksum shows accidental damage. Damage must do no harm even if the checksum is correct."""
    valid = checkpoint.read_bytes()

    def parse_signed(data):
        write(checkpoint, sign(data))
        found = checkpoints.read(checkpoint)
        assert isinstance(found.about, dict) and isinstance(found.identity, dict) and found.epoch == 1
        assert all(array.nbytes < MEBIBYTE for array in found.arrays.values())

    assert survive(parse_signed, valid, 2000, DamagedError, seed=3) > 0, "the checksums are wrong"

    def parse(data):
        write(checkpoint, data)
        checkpoints.read(checkpoint)

    assert survive(parse, valid, 500, DamagedError, seed=4) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1]},
        {"shape": [10**30]},
        {"shape": ["a"]},
        {"shape": [-3]},
        {"shape": None},
        {"dtype": "no such type"},
        {"dtype": "object"},
        {"dtype": "F64"},
        {"dtype": "BF16", "shape": [6]},
        {"data_offsets": [0, 10**15]},
        {"data_offsets": [4, 0]},
        {"data_offsets": ["a", "b"]},
    ],
)
def test_a_forged_layout_is_refused(checkpoint, change):
    content = checkpoint.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["state.kernel"] |= change
    text = json.dumps(header, separators=(",", ":")).encode()
    checkpoint.write_bytes(sign(len(text).to_bytes(8, "little") + text + content[8 + size :]))
    with pytest.raises(DamagedError) as error:
        checkpoints.read(checkpoint)
    assert "checksum" not in str(error.value)


@pytest.mark.parametrize("change", [{"epoch": "1"}, {"epoch": 2}, {"about": []}, {"identity": None}, {"format": 2}])
def test_a_forged_text_is_refused(checkpoint, change):
    found = checkpoints.read(checkpoint)
    body = {"sha256": "0" * 64, "format": checkpoints.FORMAT, **found._asdict(), **change}
    del body["arrays"]
    checkpoints.write(checkpoint, found.arrays, json.dumps(body))
    with pytest.raises(DamagedError, match=r"its format is not|it has no valid"):
        checkpoints.read(checkpoint)


def test_safetensors(tmp_path):
    path, small = tmp_path / "file", {"params": {"conv1": {"kernel": np.ones((3, 3), np.float32)}}}
    weights.save(path, small, {"seed": "0", "recipe": "best"})
    valid = path.read_bytes()

    def parse(data):
        write(path, data)
        weights.load(path)

    assert survive(parse, valid, 1000, InputError, seed=6) == 0, "the file is not of this network"
