"""Find picture files, read them as arrays, and refuse those that cannot be used. Nothing here knows about networks."""

import glob
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from jax_s6.errors import InputError
from jax_s6.predict.digit import SIZE, to_digit

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are unpacked: a file of a few kB can unpack to gigabytes of one colour."""
MAX_FILE_BYTES = 512 * 2**20
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # Pillow's JPEG includes MPO, which many phones write
_MAX_SIDE = 1024  # pixels; larger pictures are scaled down to this, which saves time


def find_files(images: Sequence[str]) -> Iterator[Path]:
    """Yield the files that the arguments name, in order.

    Args:
        images: Files, folders and globs (``**`` too); of a folder, the files with a picture's suffix, sorted.

    Raises:
        InputError: A folder contains no picture, or a glob matches no file.
    """
    for name in images:
        path = Path(name).expanduser()
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise InputError(f"images {name} is a folder without a picture ({', '.join(SUFFIXES)}): give another")
            yield from found
        elif path.exists() or not glob.has_magic(name):
            yield path
        else:
            matches = sorted(Path(m) for m in glob.glob(str(path), recursive=True) if Path(m).is_file())
            if not matches:
                raise InputError(f"images {name} matches no file: check the pattern and the folder")
            yield from matches


def read_digit(path: Path, *, raw: bool = False) -> np.ndarray:
    """Read a picture of one digit and bring it into MNIST's form.

    Args:
        path: The file.
        raw: Whether it already has that form: 28x28, light on dark, centred.

    Returns:
        uint8 ``[28, 28]``.

    Raises:
        InputError: The picture cannot be used.
    """
    grey = read_grey(path)
    if not raw:
        try:
            return to_digit(grey)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    if grey.shape != (SIZE, SIZE):
        height, width = grey.shape
        raise InputError(f"{path} is {width}x{height}, but raw needs 28x28 as in MNIST: leave --raw out")
    return np.round(255 * grey).astype(np.uint8)


def read_grey(path: Path) -> np.ndarray:
    """Read a picture as grey levels, upright, its longer side at most 1,024 pixels.

    Args:
        path: A PNG, JPEG, BMP, TIFF or WebP file of any mode; of several frames, the first is read.

    Returns:
        float32 ``[height, width]`` in ``[0, 1]``; transparent pixels become white around dark ink and black
            around light ink.

    Raises:
        InputError: The file cannot be read, has another format, is damaged or is too large.
    """
    try:
        if not path.is_file():  # a pipe or a device could have no end
            raise InputError(f"{path} {'is not a file' if path.exists() else 'does not exist'}: give a picture")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB: give a smaller picture")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, and about sizes, which are checked below
            with Image.open(path, formats=_FORMATS) as image:
                return _to_grey(image, path)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{path} has more than {MAX_PIXELS:,} pixels: give a smaller picture") from None
    except Exception as error:  # for a damaged file, decoders raise anything: struct.error, KeyError, ...
        reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({' '.join(str(error).split())[:120]})"
        raise InputError(
            f"{path} cannot be read as a picture{reason}: give a whole PNG, JPEG, BMP, TIFF or WebP"
        ) from None


def _to_grey(image: Image.Image, path: Path) -> np.ndarray:
    """Convert an open image of any mode to grey levels."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{path} has {width}x{height} pixels, more than {MAX_PIXELS:,}: give a smaller picture")
    if image.format == "JPEG":
        image.draft(None, (_MAX_SIDE, _MAX_SIDE))  # decodes at 1/2 to 1/8 of the size, which is much faster
    image.load()
    upright: Image.Image = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF":  # 16 or 32 bits, whose range is unknown: scaled by the values
        return _shrink(_stretch(np.asarray(upright, np.float32), upright.mode))
    if "transparency" in upright.info or upright.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        grey, alpha = (np.asarray(band, np.float32) / 255 for band in upright.convert("RGBA").convert("LA").split())
        opaque = float((grey * alpha).sum() / max(float(alpha.sum()), 1e-6))
        return _shrink(grey * alpha + (1 - alpha) * (1.0 if opaque < 0.5 else 0.0))
    return _shrink(np.asarray(upright.convert("RGB" if upright.mode == "LAB" else "L").convert("L"), np.float32) / 255)


def _stretch(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale to ``[0, 1]``: 16-bit files by their range, others by their values, with NaN and infinity as 0."""
    if mode.startswith("I;16"):
        return values / 65535
    values = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if 0 <= low and high <= 1:
        return values.astype(np.float32)
    return ((values - low) / max(high - low, 1e-12)).astype(np.float32)


def _shrink(grey: np.ndarray) -> np.ndarray:
    """Average blocks of pixels so that the longer side is at most 1,024."""
    factor = -(-max(grey.shape) // _MAX_SIDE)
    if factor == 1:
        return grey
    return np.asarray(Image.fromarray(grey.astype(np.float32)).reduce(factor))
