"""A data set in memory. Where it comes from is decided in ``sources.py``."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8

from jax_s6.data.idx import ROLES, Arrays, Images, Labels
from jax_s6.errors import InputError


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Attributes:
        name: The TFDS name.
        train_images: Pixels in ``[0, 255]``, in the order of the official files.
        train_labels: Classes in ``[0, num_classes)``.
        test_images: As ``train_images``.
        test_labels: As ``train_labels``.
        num_classes: At most 16, the number of the network's outputs.
        checksum: The SHA-256 of the bytes of the four arrays, in the order above. A run can only be resumed with data
            of the same checksum.
    """

    name: str
    train_images: UInt8[np.ndarray, "train 28 28 1"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test 28 28 1"]
    test_labels: Int32[np.ndarray, " test"]
    num_classes: int
    checksum: str

    @classmethod
    def of(cls, name: str, arrays: Arrays, num_classes: int) -> "Dataset":
        """Make a data set and compute its checksum."""
        digest = hashlib.sha256()
        for role in ROLES:
            digest.update(np.ascontiguousarray(arrays[role]).data)
        return cls(name=name, **arrays, num_classes=num_classes, checksum=digest.hexdigest())


def split_holdout(dataset: Dataset, holdout: int) -> tuple[Images, Labels, Images, Labels]:
    """Hold out the last training images for validation.

    Args:
        dataset: The data set.
        holdout: Number of images to hold out, in ``[0, number of training images)``.

    Returns:
        The remaining training images and labels, then the held-out images and labels.

    Raises:
        InputError: No image would remain for training.
    """
    count = len(dataset.train_images)
    if not 0 <= holdout < count:
        raise InputError(f"holdout must be >= 0 and < {count}, the number of training images, got {holdout}")
    cut = count - holdout
    images, labels = dataset.train_images, dataset.train_labels
    return images[:cut], labels[:cut], images[cut:], labels[cut:]
