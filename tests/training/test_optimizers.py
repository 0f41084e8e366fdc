"""Schedules at their knots and against PyTorch's; which parameters the weight decay changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6.config import RECIPES, Hyperparameters, OptimizerConfig
from jax_s6.network import net
from jax_s6.training import optimizers

STEPS, PER_EPOCH = 100, 10
VALUES = dict(
    learning_rate=0.5, warmup_fraction=0.2, initial_fraction=0.04, final_fraction=0.1, decay_rate=0.5, decay_epochs=2.0
)


def hyper(**values):
    base = Hyperparameters.of(RECIPES["s6"])._asdict() | VALUES | values
    return Hyperparameters(**{name: jnp.float32(value) for name, value in base.items()})


@functools.cache
def rates(kind):
    schedule = optimizers.make_schedule(OptimizerConfig(schedule=kind), hyper(), STEPS, PER_EPOCH)
    return np.asarray(jax.jit(jax.vmap(schedule))(np.arange(STEPS + 1)))


@pytest.mark.parametrize(
    ("kind", "knots"),
    [
        ("constant", {0: 1, 50: 1, 99: 1}),
        ("step", {0: 1, 19: 1, 20: 0.5, 39: 0.5, 40: 0.25, 99: 0.0625}),
        ("exponential", {0: 1, 10: 0.5**0.5, 20: 0.5, 40: 0.25}),
        ("cosine", {0: 1, 50: 0.55, 100: 0.1}),
        ("linear", {0: 1, 50: 0.55, 100: 0.1}),
        ("warmup_cosine", {0: 0.04, 10: 0.52, 20: 1, 60: 0.55, 100: 0.1}),
        ("one_cycle", {0: 0.04, 10: 0.52, 20: 1, 60: 0.55, 100: 0.1}),
    ],
)
def test_schedule_at_its_knots(kind, knots):
    got = rates(kind)
    for step, want in knots.items():
        assert got[step] == pytest.approx(0.5 * want, rel=1e-5), step


def torch_rates(make):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    got = []
    for _ in range(STEPS):
        got.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return got


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("step", lambda lib, o: lib.StepLR(o, 2 * PER_EPOCH, 0.5)),
        ("exponential", lambda lib, o: lib.ExponentialLR(o, 0.5 ** (1 / (2 * PER_EPOCH)))),
        ("cosine", lambda lib, o: lib.CosineAnnealingLR(o, STEPS, eta_min=0.05)),
        ("linear", lambda lib, o: lib.LinearLR(o, 1.0, 0.1, STEPS)),
        # OneCycleLR reaches its peak at pct_start * total_steps - 1 and its end at total_steps - 1.
        (
            "one_cycle",
            lambda lib, o: lib.OneCycleLR(
                o, 0.5, STEPS + 1, pct_start=21 / 101, div_factor=25, final_div_factor=0.4, cycle_momentum=False
            ),
        ),
    ],
)
def test_schedule_is_pytorchs(kind, make):
    np.testing.assert_allclose(rates(kind)[:STEPS], torch_rates(make), rtol=2e-5)


def test_weight_decay_acts_on_kernels_alone():
    shapes = jax.eval_shape(net.init, jax.random.key(0))["params"]
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    numbers = hyper(weight_decay=0.1, momentum=0.0, learning_rate=1.0)
    optimizer = optimizers.make_optimizer(OptimizerConfig(), numbers, STEPS, PER_EPOCH)
    grads = jax.tree.map(np.zeros_like, params)
    updates = jax.jit(lambda grads, params: optimizer.update(grads, optimizer.init(params), params)[0])(grads, params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        np.testing.assert_allclose(update, -0.1 if "kernel" in str(path) else 0.0, err_msg=str(path), rtol=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_rates_are_traced_not_compiled_in(kind):
    params = {"kernel": jnp.ones((3, 3, 1, 16))}

    @jax.jit
    def first_step(numbers):
        optimizer = optimizers.make_optimizer(OptimizerConfig(optimizer=kind), numbers, STEPS, PER_EPOCH)
        return optimizer.update(params, optimizer.init(params), params)[0]["kernel"].mean()

    with jax.numpy_dtype_promotion("standard"):  # Optax raises AdamW's float beta to an integer power
        small, large = first_step(hyper(learning_rate=0.1)), first_step(hyper(learning_rate=0.2))
    assert first_step._cache_size() == 1
    assert float(large) == pytest.approx(2 * float(small), rel=1e-4)
