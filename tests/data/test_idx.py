"""The IDX reader: a valid file is read exactly; any other ends in one sentence, with a limited use of memory."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jax_s6.data import idx
from jax_s6.errors import InputError
from tests.data.samples import NAMES, encode_idx

IMAGES = 2051
FILES = list(NAMES.values())
quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def peak_bytes(read, *args) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@quick
@given(
    count=st.integers(1, 40), seed=st.integers(0, 9), compressed=st.booleans(), items=st.sampled_from([(28, 28), ()])
)
def test_round_trip(tmp_path: Path, count, seed, compressed, items):
    array = np.random.default_rng(seed).integers(0, 256, (count, *items), np.uint8)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(encode_idx(array), 1) if compressed else encode_idx(array))
    np.testing.assert_array_equal(idx.read_array(path, items), array)


@st.composite
def damaged(draw):
    """A valid file, compressed or not, with bytes changed, removed or added anywhere."""
    data = encode_idx(images(draw(st.integers(1, 3))))
    header = bytearray(data[:16])
    for _ in range(draw(st.integers(0, 3))):
        header[draw(st.integers(0, 15))] = draw(st.integers(0, 255))
    data = bytes(header) + data[16:]
    if draw(st.booleans()):
        data = gzip.compress(data, 1)
    buffer = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        buffer[draw(st.integers(0, len(buffer) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(buffer)), st.integers(0, len(buffer))))
    return bytes(buffer[:cut]) + draw(st.binary(max_size=20))


@settings(quick, max_examples=300)
@given(data=damaged())
def test_damage_is_one_sentence_at_bounded_memory(tmp_path: Path, data):
    path = tmp_path / "damaged-file"
    path.unlink(missing_ok=True)  # to overwrite it would take 5 ms on ext4, which then waits for the disk
    path.write_bytes(data)
    tracemalloc.start()
    try:
        array = idx.read_array(path, (28, 28))
        assert array.shape[1:] == (28, 28) and array.nbytes <= 1 << 20
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20


def test_gzip_bomb_stops_where_the_header_ends(tmp_path: Path):
    path = tmp_path / "bomb"
    with gzip.open(path, "wb", 1) as file:
        file.write(struct.pack(">4I", IMAGES, 10, 28, 28))
        for _ in range(100):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    assert peak_bytes(idx.read_array, path, (28, 28)) < 6 << 20


@pytest.mark.parametrize("count", [idx.MAX_ITEMS, 2**32 - 1])
def test_a_header_alone_costs_no_memory(tmp_path: Path, count):
    path = tmp_path / "liar"
    path.write_bytes(struct.pack(">4I", IMAGES, count, 28, 28) + bytes(1000))
    assert peak_bytes(idx.read_array, path, (28, 28)) < 4 << 20


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got no header"),
        (b"\x00\x00\x08\x03", "got 2051"),
        (encode_idx(np.zeros(5, np.uint8)) + bytes(20), r"must be an IDX file of images .* got 2049 \(labels\)"),
        (b"<!DOCTYPE html><html>", "not of the MNIST family"),
        (struct.pack(">4I", IMAGES, 1, 32, 32) + bytes(1024), "images of 32x32, allowed are 28x28"),
        (struct.pack(">4I", IMAGES, 0, 28, 28), "promises 0 items"),
        (
            struct.pack(">4I", IMAGES, 2_000_000, 28, 28),
            "promises 2000000 items in its header, allowed are 1 to 1000000",
        ),
        (encode_idx(images(3))[:-1], "promises 3 items in its header and holds only 2"),
        (encode_idx(images(3)) + b"\0", "promises 3 items in its header and holds more"),
        (gzip.compress(encode_idx(images(3)))[:-1], "cannot read"),  # the data are complete, gzip's checksum is not
        (gzip.compress(encode_idx(images(3)))[:-8] + bytes(8), "CRC"),
        (b"\x1f\x8b" + bytes(50), "cannot read"),
    ],
)
def test_an_error_says_what_is_wrong(tmp_path: Path, data, message):
    path = tmp_path / "the-file"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        idx.read_array(path, (28, 28))
    assert str(path) in str(caught.value)


def test_images_and_labels_must_belong_together(tmp_path: Path):
    (tmp_path / "images").write_bytes(encode_idx(images(3)))
    (tmp_path / "labels").write_bytes(encode_idx(np.zeros(4, np.uint8)))
    with pytest.raises(InputError, match="images has 3 images but .*labels has 4 labels"):
        idx.read_split(tmp_path / "images", tmp_path / "labels")


@pytest.mark.parametrize(("label", "fits"), [(15, True), (16, False), (255, False)])
def test_labels_must_fit_the_outputs(tmp_path: Path, label, fits):
    (tmp_path / "images").write_bytes(encode_idx(images(2)))
    (tmp_path / "labels").write_bytes(encode_idx(np.array([0, label], np.uint8)))
    if fits:
        read, labels = idx.read_split(tmp_path / "images", tmp_path / "labels")
        assert read.shape == (2, 28, 28, 1) and read.dtype == np.uint8
        assert labels.dtype == np.int32 and labels.tolist() == [0, label]
    else:
        with pytest.raises(InputError, match=f"labels has {label + 1} classes, .* fit the network's 16"):
            idx.read_split(tmp_path / "images", tmp_path / "labels")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("mnist", ["{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"]),
        ("kmnist", ["{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"]),
        ("mnist", ["{}-images.idx3-ubyte", "{}-labels.idx1-ubyte"]),
        ("emnist/digits", ["emnist-digits-{}-images-idx3-ubyte.gz", "emnist-digits-{}-labels-idx1-ubyte.gz"]),
        ("emnist/digits", ["{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"]),
    ],
)
def test_every_spelling_is_found(tmp_path: Path, dataset, names):
    test = "test" if names[0].startswith("emnist") else "t10k"
    wanted = [name.format(split) for split in ("train", test) for name in names]
    touch(tmp_path, *wanted, "README.md", "emnist-letters-train-images-idx3-ubyte.gz")
    assert idx.find_files(tmp_path, dataset) == {
        role: tmp_path / name for role, name in zip(idx.ROLES, wanted, strict=True)
    }


def test_emnists_own_files_go_first(tmp_path: Path):
    own = ["emnist-digits-" + name.replace("t10k", "test") for name in FILES]
    touch(tmp_path, *FILES, *own)
    for dataset, names in (("emnist/digits", own), ("mnist", FILES)):
        assert idx.find_files(tmp_path, dataset) == {
            role: tmp_path / name for role, name in zip(idx.ROLES, names, strict=True)
        }


def test_a_missing_file_is_named(tmp_path: Path):
    assert idx.find_files(tmp_path, "mnist") is None
    touch(tmp_path, *FILES[:3])
    with pytest.raises(InputError, match="lacks t10k-labels-idx1-ubyte.gz; all four"):
        idx.find_files(tmp_path, "mnist")
    with pytest.raises(InputError, match="cannot list the folder .*README"):
        touch(tmp_path, "README")
        idx.find_files(tmp_path / "README", "mnist")
