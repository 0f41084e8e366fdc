"""Picture files of every kind are read, and damaged, huge or foreign ones are refused with one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jax_s6.errors import InputError
from jax_s6.predict.pictures import read_digit
from tests.predict.conftest import enlarge, to_png

SAVED = [
    ("L", "png", {}), ("RGB", "png", {}), ("RGBA", "png", {}), ("LA", "png", {}), ("P", "png", {}), ("1", "png", {}),
    ("I;16", "png", {}), ("I", "tiff", {}), ("F", "tiff", {}), ("CMYK", "tiff", {}), ("LAB", "tiff", {}),
    ("L", "jpg", {"quality": 95}), ("RGB", "jpg", {"quality": 95}), ("CMYK", "jpg", {"quality": 95}),
    ("RGB", "bmp", {}), ("1", "bmp", {}), ("L", "tif", {"compression": "tiff_lzw"}),
    ("RGB", "webp", {"lossless": True}),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "suffix", "options"), SAVED)
def test_files_of_every_kind_and_mode_are_read(mode, suffix, options, network, mnist, tmp_path):
    grey = 1 - enlarge(mnist[0][0])
    levels = np.round(255 * grey).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 257)
    elif mode in "IF":
        image = Image.fromarray(levels.astype({"I": np.int32, "F": np.float32}[mode]) * 1000)
    elif mode in ("LA", "RGBA"):  # ink on nothing: the transparent pixels' own colour, black, must not show
        image = Image.merge("LA", (Image.new("L", levels.shape[::-1]), Image.fromarray(255 - levels))).convert(mode)
    else:
        between = Image.fromarray(levels)
        image = between.convert("RGB").convert(mode) if mode in ("CMYK", "P") else between.convert(mode)
        if mode == "LAB":
            image = Image.merge("LAB", (between, *(Image.new("L", between.size, 128) for _ in "ab")))
    image.save(path := tmp_path / f"digit.{suffix}", **options)
    assert network.predict(read_digit(path))[0] == mnist[1][0] == 7


def test_a_photograph_that_lies_on_its_side_is_turned(network, mnist, tmp_path):
    image = Image.fromarray(np.round(255 * enlarge(mnist[0][0])).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.rotate(90, expand=True).save(path := tmp_path / "side.jpg", exif=exif, quality=95)
    assert network.predict(read_digit(path))[0] == 7


def test_raw_takes_the_pixels_as_they_are(mnist, tmp_path):
    shifted = np.roll(mnist[0][0], 3, 0)
    np.testing.assert_array_equal(read_digit(to_png(tmp_path / "raw.png", shifted / 255), raw=True), shifted)


def png_of_zeros(width, height):
    """A PNG whose header promises this many pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("unpacked"))
    for side in (10_000, 15_000, 60_000):  # Pillow accepts the first, warns of the second, and raises for the third
        (path := tmp_path / "bomb.png").write_bytes(png_of_zeros(side, side))
        with pytest.raises(InputError, match=r"more than 64,000,000"):
            read_digit(path)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP"]), st.integers(0, 3000), st.binary(max_size=40), st.booleans()
)
def test_damaged_files_give_a_digit_or_a_sentence(tmp_path_factory, kind, position, noise, cut):
    buffer = io.BytesIO()
    Image.fromarray(np.tile(np.arange(0, 240, 4, np.uint8), (60, 1))).save(buffer, kind)
    contents = buffer.getvalue()
    position %= len(contents)
    (path := tmp_path_factory.getbasetemp() / "damaged").write_bytes(
        contents[:position] + noise + (b"" if cut else contents[position + len(noise) :])
    )
    try:
        assert read_digit(path).shape == (28, 28)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
