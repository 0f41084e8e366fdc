"""Convert any picture of a digit to MNIST's form, the way MNIST was made. Only arrays: ``pictures`` reads the files.

MNIST's digits were black and white. Each was scaled with anti-aliasing, keeping its aspect ratio, to fit a box of 20x20
pixels, and placed in 28x28 so that its centre of mass is at the centre (http://yann.lecun.com/exdb/mnist).
"""

import numpy as np
from PIL import Image
from scipy import ndimage

from jax_s6.errors import InputError

SIZE, BOX = 28, 20
MIN_CONTRAST = 0.08
"""Smallest difference between ink and background, as a fraction of the range from black to white."""
MIN_INK = 0.1
"""Smallest strength that counts as part of the digit when it is cropped, as a fraction of the full strength."""
MIN_STROKE = 1.2
"""Width of the thinnest stroke that is not widened, in pixels of the result; MNIST's are 2 to 3 wide."""
_SPECK = 0.05  # connected parts with less than this fraction of the largest part's area are dirt
_FIT_SIZE = 64  # rows and columns that the background is fitted to, at most


def to_digit(grey: np.ndarray) -> np.ndarray:
    """Convert a picture of one digit to MNIST's form.

    Args:
        grey: float32 ``[height, width]`` in ``[0, 1]``: dark on light or light on dark, lit evenly or not.

    Returns:
        uint8 ``[28, 28]``: light on dark, cropped, scaled to fit 20x20, centred by mass.

    Raises:
        InputError: Nothing stands out from the background.
    """
    return centre(shrink(thicken(crop(remove_specks(extract_ink(grey))))))


def extract_ink(grey: np.ndarray) -> np.ndarray:
    """Separate ink from background.

    Args:
        grey: float32 ``[height, width]`` in ``[0, 1]``.

    Returns:
        float32 ``[height, width]``: 0 on the background, 1 in the middle of strokes.

    Raises:
        InputError: The contrast is below ``MIN_CONTRAST``.
    """
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    # Ink covers the smaller part, so it is the long tail of the grey levels: the sign of the third moment about the
    # background tells whether it is lighter or darker.
    side = 1.0 if ((grey - np.median(border)) ** 3).sum() >= 0 else -1.0
    ink = side * grey
    ink = ink - _background(ink)
    threshold = _otsu(ink)
    strokes = ink[ink > threshold]
    strength = np.percentile(strokes, 75) if strokes.size else 0.0
    if strength < MIN_CONTRAST:
        raise InputError(
            f"no digit stands out from its background: give a picture with more contrast than {strength:.0%}"
        )
    background = ink[ink <= threshold]
    # Paper grain and sensor noise: three standard deviations, each estimated as 0.74 times the interquartile range.
    noise = 3 * 0.74 * float(np.subtract(*np.percentile(background, [75, 25])))
    noise = min(noise, 0.6 * strength)
    return np.clip((ink - noise) / (strength - noise), 0, 1).astype(np.float32)


def _background(ink: np.ndarray) -> np.ndarray | float:
    """Fit a quadratic surface to what is not ink, for uneven lighting: ``[height, width]``, or a scalar."""
    y, x = (np.linspace(-1, 1, n) for n in ink.shape)
    rows, columns = (np.linspace(0, n - 1, min(n, _FIT_SIZE)).round().astype(int) for n in ink.shape)
    sample = ink[np.ix_(rows, columns)].reshape(-1).astype(np.float64)
    u, v = (axis.reshape(-1) for axis in np.meshgrid(y[rows], x[columns], indexing="ij"))
    terms = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)
    quiet = sample <= _otsu(sample)
    even = float(np.median(sample[quiet]))
    for _ in range(4):
        kept = terms[quiet]
        # Normal equations with six unknowns; the ridge makes them solvable for pictures of one row or column.
        fit = np.linalg.solve(kept.T @ kept + 1e-6 * np.eye(6), kept.T @ sample[quiet])
        rest = sample - terms @ fit
        quiet = rest <= _otsu(rest) / 2
        if quiet.mean() < 0.3:  # too little background to tell lighting from ink
            return even
    along_y, along_x = fit[1] * y + fit[3] * y * y, fit[2] * x + fit[5] * x * x
    return fit[0] + along_y[:, None] + along_x[None, :] + fit[4] * y[:, None] * x[None, :]


def _otsu(values: np.ndarray) -> float:
    """Return the threshold with the largest variance between the values below and above it (Otsu, 1979)."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return high
    counts, edges = np.histogram(values, bins=128, range=(low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], counts.sum() - np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * middles)
    mean_below, mean_above = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))  # several in a gap: take its middle
    return float(edges[1:-1][best].mean())


def remove_specks(ink: np.ndarray) -> np.ndarray:
    """Erase connected parts that are far smaller than the largest one."""
    labels, count = ndimage.label(ink > 0.5, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    if count == 0:
        return ink
    areas = np.bincount(labels.reshape(-1))[1:]
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= _SPECK * areas.max()))
    edge = max(2, round(0.02 * max(ink.shape)))  # the anti-aliased rim of a stroke
    near = ndimage.maximum_filter(kept.astype(np.uint8), 2 * edge + 1)
    return np.where(near > 0, ink, 0)


def crop(ink: np.ndarray) -> np.ndarray:
    """Cut the digit out."""
    rows, columns = (np.flatnonzero((ink > MIN_INK).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def thicken(ink: np.ndarray) -> np.ndarray:
    """Widen strokes that would become fainter than MNIST's when they are scaled down."""
    scale = BOX / max(ink.shape)
    distance = np.asarray(ndimage.distance_transform_edt(np.pad(ink > 0.5, 1)))
    width = 4 * float(distance[distance > 0].mean()) - 1  # a bar of odd width w has the mean (w + 1)^2 / (4 w)
    if scale >= 1 or width * scale >= MIN_STROKE:
        return ink
    margin = max(1, round((MIN_STROKE + 0.4) / scale - width) // 2)
    return ndimage.maximum_filter(np.pad(ink, margin), 2 * margin + 1)


def shrink(ink: np.ndarray) -> np.ndarray:
    """Scale a cropped digit to fit 20x20: float32 ``[height, width]`` in ``[0, 1]``, the longer side 20."""
    scale = BOX / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(ink).resize((width, height), resampling))


def centre(digit: np.ndarray) -> np.ndarray:
    """Place a digit of at most 20x20 in 28x28, its centre of mass on pixel 14 as in MNIST: uint8 in ``[0, 255]``."""
    field = np.zeros((SIZE, SIZE), np.uint8)
    mass = digit.sum()
    corner = []
    for axis, length in enumerate(digit.shape):
        middle = float((digit.sum(1 - axis) * np.arange(length)).sum() / mass)
        corner.append(min(max(int(np.floor(SIZE / 2 - middle + 0.5)), 0), SIZE - length))
    top, left = corner
    field[top : top + digit.shape[0], left : left + digit.shape[1]] = np.round(255 * digit)
    return field
