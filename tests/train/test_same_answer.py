"""A single run and a lane of a sweep with the same settings end in the same parameters, whoever computes a chunk."""

import json

import jax

from jax_s6.cli import read_config
from jax_s6.network import weights
from jax_s6.settings import replace
from jax_s6.sweep import sweep
from jax_s6.train.run import make_run
from tests.small_runs import assert_same_trees, lane


def test_train_with_default_flags_is_bit_for_bit_a_lane_of_a_sweep(run, bars):
    """Two of the four devices share the batches of the run; each lane of the sweep has one device."""
    config = read_config(run / "config.json")
    assert config.batch_size == 128 and make_run(config, bars).trainers[0].batch_parts == 2
    lanes = sweep(replace(config, {"seed": 1}), {"seed": (1, 0)}, devices=jax.devices()[:2])
    assert lanes.summary["groups"][0]["batch_split_over"] == 1
    assert_same_trees(lane(lanes.variables, 1), weights.load(run / "params.safetensors"))
    for got, line in zip(lanes.history[4:], (run / "metrics.jsonl").read_text().splitlines(), strict=True):
        want = json.loads(line)
        assert want.pop("seconds") > 0 and got == {"lane": 1, **want}
