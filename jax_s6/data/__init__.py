"""The data sets as arrays: IDX files, TFDS, the cache and the embedded MNIST.

Augmentation and the placing on devices are training's.
"""

from jax_s6.data.dataset import EMBEDDED, Dataset, load, split_holdout

__all__ = ["EMBEDDED", "Dataset", "load", "split_holdout"]
