"""Settings: ranges, recipes, JSON both ways."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_s6.config import (
    RECIPES,
    AugmentConfig,
    DataConfig,
    Hyperparameters,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    from_json,
    to_json,
)
from jax_s6.errors import InputError


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TrainConfig, "seed", -1),
        (TrainConfig, "seed", 2**32),
        (TrainConfig, "seed", 1.5),
        (TrainConfig, "num_epochs", 0),
        (TrainConfig, "num_epochs", True),
        (TrainConfig, "batch_size", 1),
        (TrainConfig, "label_smoothing", 1.0),
        (TrainConfig, "label_smoothing", "0.1"),
        (TrainConfig, "recipe", "fast"),
        (DataConfig, "dataset", "cifar10"),
        (DataConfig, "holdout", -1),
        (ModelConfig, "dropout_conv1", 1.0),
        (ModelConfig, "dropout_conv3", float("nan")),
        (ModelConfig, "convolution", "fft"),
        (ModelConfig, "precision", "float16"),
        (OptimizerConfig, "learning_rate", 0.0),
        (OptimizerConfig, "learning_rate", float("inf")),
        (OptimizerConfig, "momentum", 1.0),
        (OptimizerConfig, "weight_decay", -0.1),
        (OptimizerConfig, "warmup_fraction", 0.0),
        (OptimizerConfig, "decay_rate", 0.0),
        (OptimizerConfig, "decay_epochs", 0.0),
        (OptimizerConfig, "nesterov", 1),
        (OptimizerConfig, "schedule", "triangle"),
        (OptimizerConfig, "optimizer", "sgdm"),
        (AugmentConfig, "rotation", 181.0),
        (AugmentConfig, "scale", 1.0),
        (AugmentConfig, "shift", float("nan")),
        (AugmentConfig, "elastic", 7.5),
        (AugmentConfig, "anneal_fraction", 1.5),
    ],
)
def test_value_out_of_range_is_named(kind, name, value):
    with pytest.raises(InputError, match=rf"^{name} must be .*, got {value!r}$".replace("(", r"\(")):
        kind(**{name: value})


@pytest.mark.parametrize("config", RECIPES.values(), ids=RECIPES)
def test_json_round_trip(config, tmp_path):
    config = dataclasses.replace(config, seed=7, data=DataConfig(data_dir=tmp_path, holdout=5))
    assert from_json(to_json(config), "it") == config


def test_every_traced_number_is_a_setting():
    names = {
        field.name
        for kind in (TrainConfig, ModelConfig, OptimizerConfig, AugmentConfig)
        for field in dataclasses.fields(kind)
    }
    assert set(Hyperparameters._fields) <= names
    assert Hyperparameters.of(RECIPES["best"]).rotation == 10.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object"),
        ('{"sed": 1}', "unknown setting 'sed'"),
        ('{"model": {"width": 3}}', "unknown setting 'width'"),
        ('{"model": 3}', "must hold a JSON object"),
        ('{"optimizer": {"learning_rate": -1}}', "learning_rate must be > 0"),
        ('{"optimizer": {"learning_rate": NaN}}', "learning_rate must be > 0"),
        ('{"data": {"data_dir": 3}}', "data_dir must be"),
    ],
)
def test_bad_json_is_one_sentence(text, message):
    with pytest.raises(InputError, match=message) as error:
        from_json(text, "config x.json")
    assert "\n" not in str(error.value) and "x.json" in str(error.value)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_any_json_gives_a_config_or_an_input_error(value):
    for text in (json.dumps(value), json.dumps({"model": value, "data": value})):
        try:
            assert isinstance(from_json(text, "it"), TrainConfig)
        except InputError as error:
            assert "\n" not in str(error)
