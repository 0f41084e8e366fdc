"""The data sets as arrays: IDX files, TensorFlow Datasets (TFDS), the cache and the embedded MNIST.

Augmentation and the placement of the arrays on devices belong to ``training``.
"""

from jax_s6.data.dataset import Dataset, split_holdout
from jax_s6.data.sources import EMBEDDED, load

__all__ = ["EMBEDDED", "Dataset", "load", "split_holdout"]
