"""All settings of a training run, the named recipes, and their JSON form. How settings work is in ``settings``.

Kinds and sizes shape the compiled program and are listed in ``StaticSettings``. The numbers in ``Hyperparameters`` are
inputs of that program, so a sweep varies them without compiling again.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from typing_extensions import Doc

from jax_s6.errors import InputError
from jax_s6.settings import Setting, Settings, flatten, from_mapping

DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "emnist/digits"]
ScheduleName = Literal["constant", "step", "exponential", "cosine", "warmup_cosine", "one_cycle", "linear"]
OptimizerName = Literal["sgd", "adamw"]
ConvName = Literal["auto", "matmul", "xla", "packed"]
Precision = Literal["auto", "float32", "bf16"]
RecipeName = Literal["best", "s6"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Which images a run uses."""

    dataset: Annotated[DatasetName, Setting("Data set, by its TFDS name. mnist comes with the package.")] = "mnist"
    data_dir: Annotated[
        Path | None, Setting("Folder that holds the data set: prepared by TFDS, or with the four *-ubyte[.gz] files.")
    ] = None
    holdout: Annotated[int, Setting("Number of training images, the last ones, to keep for validation.", 0)] = 0

    def __post_init__(self) -> None:
        """Accept the folder as text too, which is what JSON has."""
        super().__post_init__()
        if not isinstance(self.data_dir, str | Path | None):
            raise InputError(f"data_dir must be the path of a folder, got {self.data_dir!r}")
        object.__setattr__(self, "data_dir", None if self.data_dir is None else Path(self.data_dir))


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """What of the network can be changed: its layers are fixed."""

    dropout_conv1: Annotated[float, Setting("Dropout rate after block conv1.", 0, 0.9)] = 0.0
    dropout_conv2: Annotated[float, Setting("Dropout rate after block conv2.", 0, 0.9)] = 0.0
    dropout_conv3: Annotated[float, Setting("Dropout rate after block conv3, on the logits.", 0, 0.9)] = 0.0
    convolution: Annotated[
        ConvName,
        Setting(
            "How to convolve: by matrix products (matmul), by XLA's convolution (xla), or by that of up to eight "
            "networks side by side (packed), which is for accelerators. auto: packed on TPU, matmul elsewhere."
        ),
    ] = "auto"
    precision: Annotated[
        Precision, Setting("Format of the numbers that convolutions multiply; they add in float32. auto: float32.")
    ] = "auto"

    @property
    def uses_dropout(self) -> bool:
        """Whether any rate is above 0. Without dropout the training step has no masks, which take time."""
        return max(self.dropout_conv1, self.dropout_conv2, self.dropout_conv3) > 0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """The optimizer and its learning-rate schedule."""

    optimizer: Annotated[OptimizerName, Setting("Optimizer: SGD with momentum, or AdamW.")] = "sgd"
    learning_rate: Annotated[float, Setting("Peak learning rate.", le=1_000_000, gt=0)] = 0.1
    momentum: Annotated[float, Setting("Momentum of sgd; beta1 of adamw.", 0, 0.9999)] = 0.9
    nesterov: Annotated[bool, Setting("Whether sgd uses Nesterov momentum.")] = False
    weight_decay: Annotated[float, Setting("Weight decay of the convolution kernels only.", 0, 1)] = 0.0
    schedule: Annotated[ScheduleName, Setting("How the learning rate changes during the run.")] = "constant"
    warmup_fraction: Annotated[
        float, Setting("Fraction of the steps before the peak rate (warmup_cosine, one_cycle).", le=0.999, gt=0)
    ] = 0.2
    initial_fraction: Annotated[
        float, Setting("First learning rate divided by the peak (warmup_cosine, one_cycle).", 0, 1)
    ] = 0.04
    final_fraction: Annotated[
        float, Setting("Last learning rate divided by the peak (cosine, warmup_cosine, one_cycle, linear).", 0, 1)
    ] = 0.0
    decay_rate: Annotated[
        float, Setting("Factor by which the rate changes every decay_epochs (step, exponential).", le=1, gt=0)
    ] = 0.5
    decay_epochs: Annotated[
        float, Setting("Number of epochs over which the rate changes by decay_rate (step, exponential).", gt=0)
    ] = 5.0


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Settings):
    """Strengths of the random transformation of each training image."""

    rotation: Annotated[float, Setting("Largest rotation, in degrees.", 0, 180)] = 0.0
    shift: Annotated[float, Setting("Largest shift along each axis, in pixels.", 0, 14)] = 0.0
    scale: Annotated[float, Setting("Largest relative change of size along each axis.", 0, 0.9)] = 0.0
    shear: Annotated[float, Setting("Largest shear, in degrees.", 0, 45)] = 0.0
    elastic: Annotated[
        float, Setting("Root mean square of the elastic displacement along each axis, in pixels.", 0, 7)
    ] = 0.0
    anneal_fraction: Annotated[
        float, Setting("Final fraction of the run over which all strengths decay linearly to 0.", 0, 1)
    ] = 0.0

    @property
    def enabled(self) -> bool:
        """Whether any strength is above 0."""
        return max(self.rotation, self.shift, self.scale, self.shear, self.elastic) > 0


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """All settings that determine a run."""

    recipe: Annotated[
        RecipeName, Setting("Settings to start from: the most accurate (best) or the original assignment's (s6).")
    ] = "best"
    seed: Annotated[int, Setting("Seed of weights, image order, augmentation and dropout.", 0, 2**32 - 1)] = 0
    num_epochs: Annotated[int, Setting("Number of passes over the training images.", 1, 10_000)] = 19
    batch_size: Annotated[int, Setting("Number of images per step, at most that of the training images.", 2)] = 64
    label_smoothing: Annotated[float, Setting("Share of the target spread over all classes.", 0, 0.9)] = 0.0
    data: Annotated[DataConfig, Doc("The images.")] = field(default_factory=DataConfig)
    model: Annotated[ModelConfig, Doc("The network. Its layers are fixed; they have 11,952 parameters.")] = field(
        default_factory=ModelConfig
    )
    optimizer: Annotated[OptimizerConfig, Doc("The optimizer and its learning-rate schedule.")] = field(
        default_factory=OptimizerConfig
    )
    augment: Annotated[
        AugmentConfig, Doc("Augmentation: a random transformation of each training image; none if all strengths are 0.")
    ] = field(default_factory=AugmentConfig)


class Hyperparameters(NamedTuple):
    """The numbers of a run that are inputs of its compiled program: its lanes may differ in each of them.

    They are scalars, or arrays ``[lanes]``, with the meaning of the settings of the same name.
    """

    seed: Any
    learning_rate: Any
    momentum: Any
    weight_decay: Any
    warmup_fraction: Any
    initial_fraction: Any
    final_fraction: Any
    decay_rate: Any
    decay_epochs: Any
    label_smoothing: Any
    dropout_conv1: Any
    dropout_conv2: Any
    dropout_conv3: Any
    rotation: Any
    shift: Any
    scale: Any
    shear: Any
    elastic: Any
    anneal_fraction: Any

    @classmethod
    def of(cls, config: TrainConfig) -> "Hyperparameters":
        """Collect one run's numbers from its settings."""
        settings = flatten(config)
        return cls(*(settings[name] for name in cls._fields))


class StaticSettings(NamedTuple):
    """The settings that shape the compiled program: runs that differ in one of them need programs of their own.

    ``uses_dropout`` and ``augments`` tell whether the program contains dropout and augmentation at all; every other
    field has the meaning of the setting of the same name.
    """

    num_epochs: int
    batch_size: int
    optimizer: OptimizerName
    nesterov: bool
    schedule: ScheduleName
    convolution: ConvName
    precision: Precision
    uses_dropout: bool
    augments: bool

    @classmethod
    def of(cls, config: TrainConfig) -> "StaticSettings":
        """Collect one run's static settings."""
        settings = flatten(config)
        settings |= {"uses_dropout": config.model.uses_dropout, "augments": config.augment.enabled}
        return cls(*(settings[name] for name in cls._fields))


RECIPES: dict[str, TrainConfig] = {
    "best": TrainConfig(
        recipe="best",
        batch_size=128,
        model=ModelConfig(dropout_conv1=0.02, dropout_conv2=0.02),
        optimizer=OptimizerConfig(learning_rate=0.15, nesterov=True, schedule="one_cycle"),
        augment=AugmentConfig(rotation=10.0, shift=2.0, scale=0.1, elastic=0.8, anneal_fraction=0.26),
    ),
    "s6": TrainConfig(
        recipe="s6",
        batch_size=128,
        model=ModelConfig(dropout_conv1=0.25, dropout_conv2=0.25, dropout_conv3=0.25),
        optimizer=OptimizerConfig(learning_rate=0.01),
    ),
}


def to_json(config: TrainConfig) -> str:
    """Write settings as JSON, with one object per section."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"


def from_json(text: str, source: str) -> TrainConfig:
    """Read what ``to_json`` wrote.

    Args:
        text: The JSON.
        source: What an error message calls it, such as its path.

    Raises:
        InputError: The text is not JSON, or a setting in it is unknown or has a value that is not allowed.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not JSON ({error}): give a config.json that a run wrote") from None
    return from_mapping(TrainConfig(), values, source)
