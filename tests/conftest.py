"""Strict JAX and checked annotations for every test, four simulated devices, and a small learnable data set."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import jax
from jaxtyping import install_import_hook

gc.set_threshold(50_000)  # JAX keeps many objects, and looking through them for garbage takes 4 % of the time otherwise

jax.config.update("jax_num_cpu_devices", 4)  # before the backend starts
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

jax.devices()  # starts the backend, so that no command under test divides it otherwise

# The functions of these modules, imported later, check arguments and results against their annotations at each call.
# The others of jax_s6.training, plan and arrangement, have no arrays, and tests give them stand-ins.
TRAINING = ("augmentation", "epoch", "lanes", "nans", "optimizers", "state", "step", "trainer")
ARRAY_MODULES = ["jax_s6.network", "jax_s6.data", *(f"jax_s6.training.{name}" for name in TRAINING)]
install_import_hook(ARRAY_MODULES, "beartype.beartype")

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from jax_s6 import backend  # noqa: E402
from jax_s6.data import Dataset  # noqa: E402
from jax_s6.training.lanes import GroupTrainer  # noqa: E402
from jax_s6.training.trainer import Trainer  # noqa: E402

_PROGRAMS: dict[tuple, tuple] = {}

hypothesis.settings.register_profile("untimed", deadline=None)  # a slow machine is not a failure
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Accepts a compiled program that another worker is still writing: JAX warns, and compiles it."""
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry")


def make_images(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draws one bright bar per image, whose row depends on the class, on noise: uint8 [n, 28, 28, 1]."""
    images = np.random.default_rng(seed).integers(0, 60, (len(labels), 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 + 2 * label : 5 + 2 * label, 6:22] = 250
    return images


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes an array of bytes as an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def warnings_said(caplog) -> Callable[[], list[str]]:
    """Returns the warnings of this package only: a failed download of an earlier test may still log its retries."""
    return lambda: [record.message for record in caplog.records if record.name.startswith("jax_s6")]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Replaces the user's cache by one of this test run, whose workers share their compiled programs."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cache"
    backend.use_compilation_cache(folder)  # before the first compilation, as JAX decides then whether to use one
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_S6_CACHE", str(folder))
        yield


@pytest.fixture(scope="module")
def shared_programs():
    """Has all modules that use this fixture prepare each compiled program once, and not once per run."""
    prepare = GroupTrainer.prepare

    def prepare_once(self: GroupTrainer) -> Trainer:
        shapes = tuple(x.shape for x in jax.tree.leaves(self.data.splits))
        key = (self.program, shapes, tuple(self.arrangement.devices), *self.arrangement[1:])
        if self._trainer is None and key in _PROGRAMS:
            self._trainer, self._compiled = _PROGRAMS[key]
            self._splits = self.data.place(self._trainer, self.arrangement.devices)
        trainer = prepare(self)
        _PROGRAMS.setdefault(key, (trainer, self._compiled))
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GroupTrainer, "prepare", prepare_once)
        yield


@pytest.fixture(scope="session")
def bars() -> Dataset:
    """A data set of 10 classes with 500 training and 130 test images, which two epochs are enough to learn."""
    train_labels = np.arange(500, dtype=np.int32) % 10
    test_labels = np.arange(130, dtype=np.int32) % 10
    return Dataset(
        name="bars",
        train_images=make_images(train_labels, 0),
        train_labels=train_labels,
        test_images=make_images(test_labels, 1),
        test_labels=test_labels,
        num_classes=10,
        checksum="bars",
    )
