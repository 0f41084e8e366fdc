"""Grids as lanes and groups, what is refused, and successive halving; nothing here compiles."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_s6.config import RECIPES, Hyperparameters, TrainConfig
from jax_s6.errors import InputError
from jax_s6.settings import flatten, replace
from jax_s6.training import plan as grids

CONFIG = RECIPES["best"]


def test_every_traced_number_and_every_static_setting_can_be_varied_and_read_back():
    for name in grids.SETTINGS:
        value = flatten(CONFIG)[name]
        assert flatten(replace(CONFIG, {name: value}))[name] == value
    sections = (TrainConfig, *(type(getattr(CONFIG, s)) for s in ("model", "optimizer", "augment")))
    fields = {f.name for kind in sections for f in dataclasses.fields(kind)}
    assert fields - {"recipe", "data", "model", "augment"} == set(grids.SETTINGS), "a new setting is not in SETTINGS"


def test_default_grid_is_the_assignments_six_rates_in_one_group():
    plan = grids.make_plan(CONFIG, grids.DEFAULT_GRID)
    assert plan.columns["learning_rate"].tolist() == [0.1, 0.2, 0.5, 0.8, 1.0, 2.0]
    assert len(plan.groups) == 1 and plan.groups[0].lanes.tolist() == list(range(6))


def test_lanes_are_the_product_and_the_last_setting_varies_fastest():
    plan = grids.make_plan(CONFIG, {"learning_rate": (0.1, 0.2), "momentum": (0.9,), "seed": range(3)})
    assert [(plan.settings(i)["learning_rate"], plan.settings(i)["seed"]) for i in range(6)] == [
        (0.1, 0), (0.1, 1), (0.1, 2), (0.2, 0), (0.2, 1), (0.2, 2),
    ]  # fmt: skip
    assert plan.grid == {"learning_rate": (0.1, 0.2), "seed": (0, 1, 2)}, "one value is not a dimension of the grid"
    assert plan.hyperparameters(np.array([4])).seed.tolist() == [1]


@given(
    st.lists(st.sampled_from([32, 64]), min_size=1, unique=True),
    st.lists(st.sampled_from(["cosine", "linear", "step"]), min_size=1, unique=True),
    st.lists(st.sampled_from([0.0, 0.1, 0.2]), min_size=1, unique=True),
    st.lists(st.sampled_from([0.0, 5.0]), min_size=1, unique=True),
)
def test_groups_part_the_lanes_and_share_what_is_static(batch_sizes, schedules, dropout, rotation):
    grid = {"batch_size": batch_sizes, "schedule": schedules, "dropout_conv1": dropout, "rotation": rotation}
    plan = grids.make_plan(dataclasses.replace(CONFIG, augment=TrainConfig().augment), grid)
    assert sorted(np.concatenate([group.lanes for group in plan.groups])) == list(range(plan.num_lanes))
    keys = set()
    for group in plan.groups:
        lanes = [replace(plan.config, plan.settings(lane)) for lane in group.lanes]
        assert group.config == lanes[0]
        keys_of_group = {
            (lane.model.uses_dropout, lane.augment.enabled, *(flatten(lane)[n] for n in grids.STATIC)) for lane in lanes
        }
        assert len(keys_of_group) == 1 and not keys & keys_of_group
        keys |= keys_of_group


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"learning_rate": ()}, "learning_rate must have at least one value"),
        ({"learning_rate": (0.1, 0.2, 0.1)}, "learning_rate has the value 0.1 twice"),
        ({"learning_rate": (0.1, 0.1 + 1e-12)}, "twice"),  # the same number in float32
        ({"momentum": (0.9, 1.0)}, "momentum must be >= 0 and <= 0.9999, got 1.0"),
        ({"learning_rate": ("a",)}, "learning_rate must be > 0"),
        ({"schedule": ("cosine", "square")}, "schedule must be one of"),
        ({"learning_rate": 0.1}, "learning_rate must have a sequence of values"),
        ({"recipe": ("best", "s6")}, "a grid cannot vary 'recipe'"),
        ({"seed": range(400), "learning_rate": np.linspace(0.1, 1, 400)}, "<= 100,000 lanes, got 160,000"),
    ],
)
def test_bad_grids_are_refused_in_a_sentence(grid, message):
    with pytest.raises(InputError, match=message):
        grids.make_plan(CONFIG, grid)


def test_whole_numbers_serve_as_rates():
    assert type(grids.make_plan(CONFIG, {"learning_rate": (1, 2)}).settings(0)["learning_rate"]) is float


def test_rungs_double_and_end_before_the_last_epoch():
    assert [grids.rungs(n) for n in (1, 2, 3, 5, 19)] == [(), (1,), (1, 2), (1, 2, 4), (1, 2, 4, 8, 16)]


def test_ranking_is_by_accuracy_then_loss_then_number_and_diverged_lanes_are_last():
    accuracy, loss = np.array([0.9, 0.99, 0.9, 0.9, 0.9]), np.array([0.3, 9.0, 0.2, np.nan, 0.2])
    order = grids.ranking(accuracy, loss, np.array([False, True, False, False, False]))
    assert order.tolist() == [2, 4, 0, 3, 1]


def test_columns_hold_every_hyperparameter():
    plan = grids.make_plan(CONFIG, {"seed": (3, 4)})
    for name, value in Hyperparameters.of(dataclasses.replace(CONFIG, seed=4))._asdict().items():
        assert plan.columns[name][1] == value
