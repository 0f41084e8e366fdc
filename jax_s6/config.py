"""Every setting of a run as frozen dataclasses, checked when they are made, and the named recipes.

Sizes (batch size, epochs) are static: they shape the compiled program. The numbers in ``Hyperparameters`` are traced:
a sweep varies them without another compilation.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from jax_s6.errors import InputError

DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "emnist/digits"]
ScheduleName = Literal["constant", "step", "exponential", "cosine", "warmup_cosine", "one_cycle", "linear"]
OptimizerName = Literal["sgd", "adamw"]
ConvName = Literal["auto", "matmul", "xla"]
Precision = Literal["auto", "float32", "bf16"]
RecipeName = Literal["best", "s6"]


def _require_range(config: Any, name: str, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """Raises InputError unless ``low <= config.name <= high`` (``low <`` if open_low) and the value is finite."""
    value = getattr(config, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value) and (low < value if open_low else low <= value) and value <= high:
        return
    most = f"{high:,}" if isinstance(high, int) else f"{high:g}"
    bound = f"{'>' if open_low else '>='} {low:g}" + (f" and <= {most}" if high < math.inf else "")
    raise InputError(f"{name} must be {bound}, got {value!r}")


def _require_count(config: Any, name: str, low: int, high: float = math.inf) -> None:
    """Raises InputError unless ``config.name`` is a whole number in ``[low, high]``."""
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name} must be a whole number, got {value!r}")
    _require_range(config, name, low, high)


def _require_choice(config: Any, name: str, choices: Any) -> None:
    """Raises InputError unless ``config.name`` is one of a Literal's values."""
    value = getattr(config, name)
    if value not in get_args(choices):
        raise InputError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def _require_flag(config: Any, name: str) -> None:
    """Raises InputError unless ``config.name`` is true or false."""
    if not isinstance(getattr(config, name), bool):
        raise InputError(f"{name} must be true or false, got {getattr(config, name)!r}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images."""

    dataset: DatasetName = "mnist"
    """The data set, by its TFDS name. mnist ships with the package."""
    data_dir: Path | None = None
    """A prepared TFDS folder, or a folder with the four *-ubyte[.gz] files."""
    holdout: int = 0
    """Keep the last N training images for validation, 0 to one less than there are."""

    def __post_init__(self) -> None:
        _require_choice(self, "dataset", DatasetName)
        _require_count(self, "holdout", 0)
        if not isinstance(self.data_dir, Path | None):
            raise InputError(f"data_dir must be a folder's path, got {self.data_dir!r}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: the layers are fixed, 11,952 parameters."""

    dropout_conv1: float = 0.0
    """Dropout rate after conv1, in [0, 0.9]."""
    dropout_conv2: float = 0.0
    """Dropout rate after conv2, in [0, 0.9]."""
    dropout_conv3: float = 0.0
    """Dropout rate after conv3, which is on the logits, in [0, 0.9]."""
    convolution: ConvName = "auto"
    """matmul: one matrix product (fast on CPU); xla: the platform's convolution; auto: by platform."""
    precision: Precision = "auto"
    """Of the convolutions' operands; sums and state are float32. auto: see the README."""

    def __post_init__(self) -> None:
        for name in ("dropout_conv1", "dropout_conv2", "dropout_conv3"):
            _require_range(self, name, 0, 0.9)
        _require_choice(self, "convolution", ConvName)
        _require_choice(self, "precision", Precision)

    @property
    def uses_dropout(self) -> bool:
        """Whether any rate is above 0: the masks cost time, so without it the step has none."""
        return max(self.dropout_conv1, self.dropout_conv2, self.dropout_conv3) > 0


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Strengths of the random warp of each training image; all 0: none."""

    rotation: float = 0.0
    """Largest rotation, in degrees, 0 to 180."""
    shift: float = 0.0
    """Largest shift along each axis, in pixels, 0 to 14."""
    scale: float = 0.0
    """Largest relative change of size along each axis, 0 to 0.9."""
    shear: float = 0.0
    """Largest shear, in degrees, 0 to 45."""
    elastic: float = 0.0
    """Root mean square of an elastic displacement along each axis, in pixels, 0 to 7."""
    anneal_fraction: float = 0.0
    """Last share of the run over which all strengths fall to 0 along a straight line, in [0, 1]; 0: they never do."""

    def __post_init__(self) -> None:
        for name, high in (("rotation", 180), ("shift", 14), ("scale", 0.9), ("shear", 45), ("elastic", 7)):
            _require_range(self, name, 0, high)
        _require_range(self, "anneal_fraction", 0, 1)

    @property
    def enabled(self) -> bool:
        """Whether any strength is above 0."""
        return max(self.rotation, self.shift, self.scale, self.shear, self.elastic) > 0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its learning-rate schedule."""

    optimizer: OptimizerName = "sgd"
    """sgd (with momentum) or adamw (whose beta1 is the momentum)."""
    learning_rate: float = 0.1
    """Peak learning rate, > 0."""
    momentum: float = 0.9
    """In [0, 0.9999]."""
    nesterov: bool = False
    """Nesterov's form of the momentum."""
    weight_decay: float = 0.0
    """On convolution kernels only, never on biases or batch normalisation, in [0, 1]."""
    schedule: ScheduleName = "constant"
    """How the learning rate goes over the run."""
    warmup_fraction: float = 0.2
    """Share of all steps spent rising to the peak, in (0, 1): warmup_cosine and one_cycle."""
    initial_fraction: float = 0.04
    """First learning rate over the peak, in [0, 1]: warmup_cosine and one_cycle."""
    final_fraction: float = 0.0
    """Last learning rate over the peak, in [0, 1]: cosine, warmup_cosine, one_cycle and linear."""
    decay_rate: float = 0.5
    """Factor every decay_epochs, in (0, 1]: step and exponential."""
    decay_epochs: float = 5.0
    """Epochs between two factors, > 0: step and exponential."""

    def __post_init__(self) -> None:
        _require_choice(self, "optimizer", OptimizerName)
        _require_choice(self, "schedule", ScheduleName)
        _require_flag(self, "nesterov")
        _require_range(self, "learning_rate", 0, 1_000_000, open_low=True)
        _require_range(self, "momentum", 0, 0.9999)
        _require_range(self, "weight_decay", 0, 1)
        _require_range(self, "warmup_fraction", 0, 0.999, open_low=True)
        _require_range(self, "initial_fraction", 0, 1)
        _require_range(self, "final_fraction", 0, 1)
        _require_range(self, "decay_rate", 0, 1, open_low=True)
        _require_range(self, "decay_epochs", 0, open_low=True)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a run."""

    recipe: RecipeName = "best"
    """The settings that the other flags change: best (the most accurate) or s6 (the original assignment's)."""
    seed: int = 0
    """Of weights, order, augmentation and dropout; 0 to 4,294,967,295."""
    num_epochs: int = 19
    """Passes over the training images, 1 to 10,000; the assignment asks for fewer than 20."""
    batch_size: int = 64
    """Images a step, 2 to the number of training images."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over the real classes, in [0, 0.9]."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        _require_choice(self, "recipe", RecipeName)
        _require_count(self, "seed", 0, 2**32 - 1)
        _require_count(self, "num_epochs", 1, 10_000)
        _require_count(self, "batch_size", 2)
        _require_range(self, "label_smoothing", 0, 0.9)


class Hyperparameters(NamedTuple):
    """The numbers of a run that are traced: lanes of one compiled program may differ in each of them.

    Scalars, or arrays ``[lanes]``; their meaning is that of the settings of the same name.
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
        """Collects one run's numbers from its settings."""
        sections = (config, config.model, config.optimizer, config.augment)
        return cls(**{name: getattr(s, name) for s in sections for name in cls._fields if hasattr(s, name)})


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
    """Writes a configuration as JSON, one object a section."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n"


def from_json(text: str, source: str) -> TrainConfig:
    """Reads what ``to_json`` wrote.

    Args:
        text: The JSON.
        source: What to call it in an error, such as its path.

    Raises:
        InputError: The text is not such JSON, or a setting in it is unknown or out of range.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not JSON ({error}): give a config.json that a run wrote") from None
    sections = {"data": DataConfig, "model": ModelConfig, "optimizer": OptimizerConfig, "augment": AugmentConfig}
    return _from_mapping(TrainConfig, values, source, sections)


def _from_mapping(kind: Any, values: Any, source: str, sections: dict[str, Any] | None = None) -> Any:
    """Makes a dataclass from a mapping, refusing settings that it does not have."""
    if not isinstance(values, dict):
        raise InputError(f"{source} must hold a JSON object with settings, got {type(values).__name__}")
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise InputError(f"{source} has the unknown setting {unknown[0]!r}; the settings there are {', '.join(known)}")
    arguments = dict(values)
    for name, section in (sections or {}).items():
        if name in arguments:
            arguments[name] = _from_mapping(section, arguments[name], source)
    if isinstance(arguments.get("data_dir"), str):
        arguments["data_dir"] = Path(arguments["data_dir"])
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{error} (in {source})") from None
