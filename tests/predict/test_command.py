"""Pictures to answers: MNIST's own preprocessing, every kind of file, and one sentence for what cannot be used."""

import dataclasses
import io
import json
import os
import struct
import zlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jax_s6 import cli
from jax_s6.config import RECIPES, DataConfig
from jax_s6.data import dataset as data
from jax_s6.errors import InputError
from jax_s6.export import card as export_card
from jax_s6.network import net as model
from jax_s6.network import weights
from jax_s6.predict import command as predict
from jax_s6.predict import digit as predict_digit
from jax_s6.predict import pictures as predict_images
from jax_s6.predict.command import load_model
from jax_s6.predict.model import DEFAULT_MODEL, make_apply
from jax_s6.train import command as train


@pytest.fixture(scope="module")
def mnist():
    dataset = data.load(DataConfig(data_dir=data.EMBEDDED))
    return dataset.test_images[..., 0], dataset.test_labels


@pytest.fixture(scope="module")
def network():
    return load_model()


def enlarge(image, side=200, padding=((30, 80), (110, 20))):
    """A picture of another size with the digit off its centre: float32 in [0, 1], light on dark."""
    return np.pad(np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)) / 255.0, padding)


def photograph(image, seed):
    """Dark ink on grey paper in slanting light, with grain."""
    rng, digit = np.random.default_rng(seed), enlarge(image)
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in digit.shape), indexing="ij")
    light = 0.85 - 0.35 * rng.random() * x - 0.25 * rng.random() * y
    return np.clip(light * (1 - 0.7 * digit) + rng.normal(0, 0.03, digit.shape), 0, 1)


def to_png(path, grey):
    Image.fromarray(np.round(255 * np.asarray(grey)).astype(np.uint8)).save(path)
    return path


def run(args, capsys):
    """The exit status, and what was printed."""
    status = 0
    try:
        cli.run(lambda: predict.main([str(arg) for arg in args]))
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_default_model_is_as_good_as_its_card_says(network, mnist):
    images, labels = mnist
    card = json.loads(export_card.card_path(DEFAULT_MODEL).read_text())
    provenance = card["provenance"]
    assert (network.predict(images) == labels).mean() == pytest.approx(provenance["test_accuracy"], abs=3e-4)
    assert provenance["command"].startswith("python -m jax_s6.train --recipe") and "seed" in provenance
    assert DEFAULT_MODEL.stat().st_size < 60_000


def test_an_image_of_mnist_comes_back_as_it_was(mnist):
    # What MNIST's makers did, done to their result, changes next to nothing, on which side the ink may be.
    for image in mnist[0][:40]:
        for grey in (image / np.float32(255), 1 - image / np.float32(255)):
            assert np.abs(predict_digit.to_digit(grey).astype(int) - image).mean() < 4


@pytest.mark.parametrize("make", [lambda i, _: enlarge(i), lambda i, _: 1 - enlarge(i), photograph])
def test_pictures_of_digits_get_the_answers_of_the_digits(make, network, mnist):
    images = mnist[0][:60]
    found = np.stack([predict_digit.to_digit(make(i, k).astype(np.float32)) for k, i in enumerate(images)])
    assert (network.predict(found) == network.predict(images)).mean() >= 0.98


def test_thin_strokes_are_widened_to_mnists(network):
    picture = np.ones((600, 600), np.float32)
    picture[100:500, 300:302] = 0  # a 1 that scaled down would be 0.1 pixels wide
    digit = predict_digit.to_digit(picture)
    assert digit.max() > 200 and network.predict(digit)[0] == 1


def test_specks_do_not_move_the_digit(mnist):
    picture = enlarge(mnist[0][0]).astype(np.float32)
    dirty = picture.copy()
    dirty[2:6, 2:6] = 1
    clean = predict_digit.to_digit(picture).astype(int)
    np.testing.assert_allclose(predict_digit.to_digit(dirty), clean, atol=2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (300, 200)])
def test_blank_pictures_are_refused(shape):
    for level in (0.0, 0.5, 1.0):
        with pytest.raises(InputError, match="no digit stands out"):
            predict_digit.to_digit(np.full(shape, level, np.float32))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.sampled_from([2, 3, 256]))
def test_any_picture_gives_a_centred_digit_or_a_sentence(height, width, seed, levels):
    grey = np.random.default_rng(seed).integers(0, levels, (height, width)) / np.float32(levels - 1)
    try:
        digit = predict_digit.to_digit(grey.astype(np.float32))
    except InputError:
        return
    assert digit.shape == (28, 28) and digit.dtype == np.uint8 and digit.max() > 0
    rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
    assert rows[-1] - rows[0] < 20 and columns[-1] - columns[0] < 20


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
    assert network.predict(predict_images.read_digit(path))[0] == mnist[1][0] == 7


def test_a_photograph_that_lies_on_its_side_is_turned(network, mnist, tmp_path):
    image = Image.fromarray(np.round(255 * enlarge(mnist[0][0])).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.rotate(90, expand=True).save(path := tmp_path / "side.jpg", exif=exif, quality=95)
    assert network.predict(predict_images.read_digit(path))[0] == 7


def test_lines_json_folders_globs_and_the_sheet(mnist, network, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not a picture")
    for i in range(3):
        to_png(tmp_path / f"{i}.png", 1 - enlarge(mnist[0][i]))
    status, out, err = run([tmp_path, "--sheet", tmp_path / "sheet.png"], capsys)
    lines = out.splitlines()
    assert status == 0 and err == "" and len(lines) == 3
    for i, line in enumerate(lines):
        assert line.startswith(f"{tmp_path / f'{i}.png'}  {mnist[1][i]}  ") and "%  (then " in line
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 300
    (tmp_path / "sheet.png").unlink()
    status, out, _ = run([tmp_path / "[01].png", tmp_path / "2.png", "--json"], capsys)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["class"] for row in rows] == mnist[1][:3].tolist()
    digit = predict_images.read_digit(tmp_path / "0.png")
    np.testing.assert_allclose(rows[0]["probabilities"], network.predict_proba(digit)[0], rtol=1e-4, atol=1e-7)
    assert rows[0]["probability"] == max(rows[0]["probabilities"]) and len(rows[0]["probabilities"]) == 16


def test_raw_takes_the_pixels_as_they_are(mnist, network, tmp_path, capsys):
    shifted = np.roll(mnist[0][0], 3, 0)
    to_png(tmp_path / "raw.png", shifted / 255)
    np.testing.assert_array_equal(predict_images.read_digit(tmp_path / "raw.png", raw=True), shifted)
    to_png(tmp_path / "large.png", np.zeros((30, 31)))
    status, out, err = run([tmp_path / "raw.png", tmp_path / "large.png", "--raw"], capsys)
    assert status == 2 and len(out.splitlines()) == 1
    assert err == f"error: {tmp_path / 'large.png'} is 31x30, but raw takes 28x28 as in MNIST: leave --raw out\n"


def png_of_zeros(width, height):
    """A PNG whose header promises so many pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("unpacked"))
    for side in (10_000, 15_000, 60_000):  # Pillow says nothing, warns, and raises
        (path := tmp_path / "bomb.png").write_bytes(png_of_zeros(side, side))
        with pytest.raises(InputError, match=r"more than 64,000,000"):
            predict_images.read_digit(path)


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
        assert predict_images.read_digit(path).shape == (28, 28)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "images must name at least one picture"),
        (["/nonexistent.png"], "/nonexistent.png does not exist: name a picture"),
        (["/nonexistent/*.png"], "matches no file"),
        (["{tmp}"], "is a folder without a picture"),
        (["{tmp}/words.png"], "cannot be read as a picture: give a whole PNG"),
        (["{tmp}/pipe"], "is not a file"),
        (["{tmp}/words.png", "--run", "/nonexistent"], "run /nonexistent does not exist"),
        (["{tmp}/words.png", "--run", "{tmp}"], "has no params.safetensors"),
        (["{tmp}/words.png", "--run", "{tmp}/words.png"], "cannot be read as safetensors"),
        (["{tmp}/words.png", "--sheet", "{tmp}/sheet.jpg"], "sheet must be the name of a .png file"),
        (["{tmp}/words.png", "--sheet", "{tmp}/words.png"], "words.png is one of the pictures: give another --sheet"),
        (["{tmp}/words.png", "--sheet", "{tmp}/no/sheet.png"], "no is no folder: give another --sheet"),
        (["{tmp}/words.png", "--run", ""], "--run is empty: give a value, or leave it out"),
        ([""], "an argument is empty"),
        (["{tmp}/words.png", "--rwa"], "--rwa"),
    ],
)
def test_bad_input_is_one_sentence(args, message, tmp_path, capsys):
    if args != ["{tmp}"]:
        (tmp_path / "words.png").write_text("words")
        os.mkfifo(tmp_path / "pipe")
    status, out, err = run([arg.format(tmp=tmp_path) for arg in args], capsys)
    assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_load_model_reads_runs_and_names_classes(tmp_path, mnist):
    variables = jax.jit(model.init)(jax.random.key(1))
    weights.save(tmp_path / "params.safetensors", variables)
    (tmp_path / "config.json").write_text('{"data": {"dataset": "fashion_mnist"}}')
    network = load_model(tmp_path)
    assert network.class_names[9] == "ankle boot" and network.class_names[10] == "10"
    expected = np.asarray(jax.jit(model.Net().apply)(variables, mnist[0][:5, ..., None]))
    np.testing.assert_allclose(network.logits(mnist[0][:5]), expected, atol=1e-5)
    np.testing.assert_allclose(network.logits(mnist[0][3].astype(np.float64)), expected[3:4], atol=1e-5)
    assert network.logits(np.zeros((0, 28, 28, 1), np.uint8)).shape == (0, 16)
    assert load_model(tmp_path / "params.safetensors").source == network.source


@pytest.mark.parametrize(("count", "devices"), [(64, 1), (192, 3), (320, 1)])
def test_as_many_devices_as_divide_the_parts_judge_a_batch(network, mnist, count, devices):
    logits = make_apply(network.variables)(mnist[0][:count, ..., None])
    assert len(logits.sharding.device_set) == devices
    parts = [network.logits(mnist[0][start : start + 64]) for start in range(0, count, 64)]
    np.testing.assert_allclose(logits, np.concatenate(parts), atol=1e-4)


def test_weights_of_a_run_that_diverged_are_refused(tmp_path, network):
    broken = jax.tree.map(lambda x: np.full_like(x, np.inf), network.variables)
    weights.save(tmp_path / "params.safetensors", broken)
    with pytest.raises(InputError, match="not finite: it diverged"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 27, 28)), "shape"), (np.zeros((2, 28, 28, 3)), "shape"), (np.zeros(28), "shape"),
        (np.full((28, 28), 256.0), r"\[0, 255\]"), (np.full((28, 28), np.nan), r"\[0, 255\]"),
        (np.full((28, 28), -1), r"\[0, 255\]"), (np.zeros((28, 28), bool), "uint8"),
        (np.zeros((28, 28), "c8"), "uint8"), (np.eye(28), "multiply them by 255"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images_are_refused(images, message, network):
    with pytest.raises(InputError, match=message):
        network.predict(images)


def test_the_card_writes_the_command_that_trained(tmp_path):
    s6 = RECIPES["s6"]
    config = dataclasses.replace(s6, seed=3, optimizer=dataclasses.replace(s6.optimizer, nesterov=True))
    assert export_card.command_of(config) == "python -m jax_s6.train --recipe s6 --seed 3 --nesterov"
    assert train.parse_command(export_card.command_of(config).split()[3:]).run == config
