"""Nested settings by name: read, changed, and described for tyro."""

import dataclasses
from typing import Annotated, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_s6.config import RECIPES, DataConfig, OptimizerConfig, StaticSettings, TrainConfig
from jax_s6.errors import InputError
from jax_s6.settings import Setting, Settings, flatten, replace

BEST = RECIPES["best"]


def test_no_two_settings_have_the_same_name_and_each_is_described():
    sections = [BEST, *(s for s in vars(BEST).values() if dataclasses.is_dataclass(s))]
    fields = [f for s in sections for f in dataclasses.fields(s) if not dataclasses.is_dataclass(getattr(s, f.name))]
    names = [f.name for f in fields]
    assert sorted(names) == sorted(flatten(BEST)), "a name twice hides a setting"
    for field in fields:
        _, setting = get_args(field.type)
        assert isinstance(setting, Setting) and setting.documentation.endswith(".")


def test_flat_settings_make_the_same_configuration():
    assert replace(TrainConfig(), flatten(BEST)) == BEST
    assert replace(BEST, {}) == BEST


@given(st.dictionaries(st.sampled_from(["shear", "learning_rate", "label_smoothing", "dropout_conv2"]), st.just(0.5)))
def test_only_the_named_settings_change(changes):
    assert flatten(replace(BEST, changes)) == flatten(BEST) | changes


def test_a_section_and_a_setting_may_share_a_name():
    assert replace(BEST, {"optimizer": "adamw", "seed": 3}).optimizer == dataclasses.replace(
        BEST.optimizer, optimizer="adamw"
    )


def test_mappings_are_flattened_too_with_their_section_on_request():
    about = {"versions": {"jax": "1", "none": {}}, "cores": 2}
    assert flatten(about) == {"jax": "1", "cores": 2}
    assert flatten({"model": BEST.model, **about}, dotted=True) == {
        **{f"model.{name}": value for name, value in vars(BEST.model).items()}, "versions.jax": "1", "cores": 2,
    }  # fmt: skip


def test_unknown_settings_and_values_out_of_range_are_refused():
    with pytest.raises(TypeError, match="learning_rte"):
        replace(BEST, {"learning_rte": 1.0})
    with pytest.raises(InputError, match="momentum must be >= 0 and <= 0.9999, got 1.0"):
        replace(BEST, {"momentum": 1.0})


def test_help_and_errors_name_the_same_range():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Section(Settings):
        rate: Annotated[float, Setting("Rate.", le=10_000, gt=0)] = 1.0
        count: Annotated[int, Setting("Count.")] = 1

    assert get_args(Section.__annotations__["rate"])[1].documentation == "Rate. Allowed: > 0 and <= 10000."
    with pytest.raises(InputError, match="^rate must be > 0 and <= 10,000, got 0$"):
        Section(rate=0)
    with pytest.raises(InputError, match="^count must be a whole number, got 1.0$"):
        Section(count=1.0)


def test_a_folder_may_be_text_as_json_has_it(tmp_path):
    assert DataConfig(data_dir=str(tmp_path)) == DataConfig(data_dir=tmp_path)


def test_static_settings_are_equal_where_one_program_serves():
    static = StaticSettings.of(BEST)
    for change in ({"learning_rate": 0.5}, {"rotation": 1.0, "dropout_conv1": 0.5}, {"seed": 3, "recipe": "s6"}):
        assert StaticSettings.of(replace(BEST, change)) == static
    for change in ({"batch_size": 64}, {"dropout_conv1": 0.0, "dropout_conv2": 0.0}, {"nesterov": False}):
        assert StaticSettings.of(replace(BEST, change)) != static
    assert not StaticSettings.of(TrainConfig(optimizer=OptimizerConfig())).augments
