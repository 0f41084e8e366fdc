"""Parsers of bytes from elsewhere: 10,000 damaged inputs, none of which crashes, hangs or takes much memory.

A parser may return or raise the one exception that it promises; anything else, such as a KeyError, fails. The inputs
are valid files with bytes changed, cut or repeated, and plain noise: most are wrong beyond the first check.
"""

import gzip
import hashlib
import json
import random
import resource
import shutil
import time

import numpy as np
import pytest

from jax_s6 import config
from jax_s6.data import idx
from jax_s6.errors import InputError
from jax_s6.network import weights
from jax_s6.runs import checkpoint_files
from jax_s6.runs.checkpoint_files import DamagedError
from jax_s6.runs.checkpoints import Store
from tests.conftest import write_idx

MEBIBYTE = 1 << 20
PATIENCE = 10.0  # seconds for one input: a hang, and nothing that a slow machine could do
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
    """Changes a few places of a file, or all of it."""
    if random_.random() < 0.05:
        return random_.randbytes(random_.randrange(200))
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 5))):
        # Half of the changes in the first 64 bytes, where headers are.
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


def survive(parse, valid: bytes, count: int, allowed: type[Exception], seed: int) -> int:
    """Feeds damaged inputs to a parser; returns how many it took for valid."""
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
        path.write_bytes(data)
        images = idx.read_array(path, (28, 28))
        assert images.shape[1:] == (28, 28) and images.dtype == np.uint8

    accepted = survive(parse, valid, 2000, InputError, seed=compressed)
    assert 0 < accepted < 1900, "changed pixels are valid, changed headers are not"


def test_config():
    def parse(data):
        try:
            text = data.decode()
        except UnicodeDecodeError:  # train.read_config says so
            raise InputError("not text") from None
        assert isinstance(config.from_json(text, "config"), config.TrainConfig)

    assert survive(parse, config.to_json(config.RECIPES["best"]).encode(), 2500, InputError, seed=2) < 2400


def write_signed(path, text):
    """Writes a checkpoint's text with the checksum that is right for it, which someone can forge."""
    path.write_bytes(text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n")


@pytest.fixture
def kept(tmp_path):
    store = Store(tmp_path / "checkpoints", {"seed": 0})
    store.clear()
    arrays = {"state.step": np.ones(1, np.int32), "state.kernel": np.ones(3, np.float32)}
    store.save(1, arrays, {"history": []}, 0.5)
    store.wait()
    return store.folder / "1"


def test_checkpoint_text(kept):
    """Damage by accident is noticed by the checksum; here it is right, and the text still must not do harm."""
    valid = (kept / "checkpoint.json").read_bytes()
    text = valid.rstrip(b"\n").rpartition(b"\n")[0]

    def parse(data):
        write_signed(kept / "checkpoint.json", data)
        body = checkpoint_files.read_text(kept)
        assert isinstance(body["about"], dict) and body["epoch"] == 1
        checkpoint_files.check_files(kept, body["files"])

    survive(parse, text, 2000, DamagedError, seed=3)

    def parse_unsigned(data):
        (kept / "checkpoint.json").write_bytes(data)
        checkpoint_files.read_text(kept)

    accepted = survive(parse_unsigned, valid, 500, DamagedError, seed=4)
    assert accepted <= 5, "only what is added after the checksum may go unnoticed"


def test_checkpoint_text_names_no_file_that_is_read(kept, tmp_path):
    """Files outside the checkpoint are neither read nor needed, whatever its list says."""
    body = json.loads((kept / "checkpoint.json").read_bytes().splitlines()[0])
    (tmp_path / "secret").write_bytes(b"secret")
    body["files"]["../../secret"] = hashlib.sha256(b"secret").hexdigest()
    write_signed(kept / "checkpoint.json", json.dumps(body).encode())
    with pytest.raises(DamagedError, match=r"\.\./\.\./secret' is missing"):
        checkpoint_files.read_arrays(kept, checkpoint_files.read_text(kept))


def test_orbax_files(kept):
    """With a forged list of checksums Orbax reads damaged files: no crash of the process, no hang."""
    original = kept.with_name("original")
    shutil.copytree(kept, original)
    random_ = random.Random(5)
    body = checkpoint_files.read_text(kept)
    for _ in range(50):
        shutil.rmtree(kept)
        shutil.copytree(original, kept)
        files = sorted(path for path in kept.rglob("*") if path.is_file() and path.name != "checkpoint.json")
        path = random_.choice(files)
        path.write_bytes(damage(path.read_bytes(), random_))
        forged = checkpoint_files._checksums(kept)
        try:
            arrays = checkpoint_files.read_arrays(kept, {**body, "files": forged})
            assert all(array.nbytes < MEBIBYTE for array in arrays.values())
        except DamagedError as error:
            assert str(error)
    assert body["files"]


@pytest.mark.parametrize(
    "change",
    [
        {"state.kernel": ["float32", [1]]},
        {"more": ["float32", [1]]},
        {"more": ["float64", [1]]},
        {"more": ["no such type", [1]]},
        {"state.kernel": ["float32", [10**30]]},
        {"state.kernel": ["float32", ["a"]]},
        {"state.kernel": "float32"},
        {"state.kernel": None},
        {"state.kernel": ["object", [3]]},
        {"state.kernel": ["float32", [-3]]},
    ],
)
def test_a_forged_layout_is_refused(kept, change):
    body = checkpoint_files.read_text(kept)
    assert "state.kernel" in body["layout"]
    with pytest.raises(DamagedError, match="does not say what the vector holds"):
        checkpoint_files.read_arrays(kept, {**body, "layout": body["layout"] | change})


def test_safetensors(tmp_path):
    path, small = tmp_path / "file", {"params": {"conv1": {"kernel": np.ones((3, 3), np.float32)}}}
    weights.save(path, small, {"seed": "0", "recipe": "best"})
    valid = path.read_bytes()

    def parse(data):
        path.write_bytes(data)
        weights.load(path)

    assert survive(parse, valid, 1000, InputError, seed=6) == 0, "it is not of this network"
