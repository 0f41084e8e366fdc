"""Epochs and lanes: order, evaluation of every image, devices and widths that change nothing, divergence."""

import dataclasses
import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6 import backend
from jax_s6.config import RECIPES, AugmentConfig, Hyperparameters, ModelConfig, TrainConfig
from jax_s6.network import net as model
from jax_s6.training import step as steps
from jax_s6.training.epoch import Split, epoch_order, evaluate, means, train_epoch
from jax_s6.training.state import Program, create_train_state
from jax_s6.training.trainer import Trainer, make_mesh

# Everything on: augmentation that ends, dropout, momentum, a schedule.
CONFIG = dataclasses.replace(
    RECIPES["best"],
    batch_size=32,
    num_epochs=2,
    label_smoothing=0.05,
    augment=AugmentConfig(rotation=10.0, shift=2.0, scale=0.1, elastic=0.5, anneal_fraction=0.5),
    model=ModelConfig(dropout_conv1=0.1, dropout_conv2=0.1, dropout_conv3=0.1),
)


GENTLE = dataclasses.replace(CONFIG, num_epochs=1)  # three steps of FEW: rounding has not grown yet
FEW = 96


@pytest.fixture(autouse=True, scope="module")
def batches_of_32_in_chunks():
    """The first block takes them in chunks of 16 images, as it does larger batches in chunks of 64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "chunk_size", lambda target=None: 16)
        yield


def split(dataset, part, count=None):
    return Split(
        jnp.asarray(getattr(dataset, f"{part}_images")[:count]), jnp.asarray(getattr(dataset, f"{part}_labels")[:count])
    )


@functools.cache
def make_trainer(config, num_train, num_lanes, lane_devices, batch_devices, width):
    devices = jax.devices()[: lane_devices * batch_devices]
    return Trainer(Program(config, num_train), make_mesh(devices, lane_devices), width)


def run(dataset, hypers, *, lane_devices=1, batch_devices=1, width=1, config=CONFIG, count=None):
    """Trains lanes for config.num_epochs; returns their states and the epochs' metrics."""
    train = split(dataset, "train", count)
    trainer = make_trainer(config, train.labels.size, len(hypers), lane_devices, batch_devices, width)
    hyper = trainer.put_lanes(Hyperparameters(*(np.stack(x) for x in zip(*hypers, strict=True))))
    splits = trainer.put_shared((train, split(dataset, "test"), None))
    compiled = trainer.compile(hyper, splits)
    state, history = compiled.create(hyper), []
    for epoch in range(config.num_epochs):
        state, metrics = compiled.epoch(hyper, state, jnp.int32(epoch), *splits)
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def lanes(count):
    base = Hyperparameters.of(CONFIG)
    return [base._replace(learning_rate=0.02 * (i + 1), seed=i % 2, momentum=0.8 + 0.02 * i) for i in range(count)]


def lane(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


@pytest.fixture(scope="module")
def alone(bars):
    return [run(bars, [hyper]) for hyper in lanes(4)]


def assert_same(got, want, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, want)


def test_epochs_show_every_image_equally_often():
    num_images, drawn = 50, 48
    orders = [np.asarray(epoch_order(jax.random.key(0), epoch, num_images, drawn)) for epoch in range(25)]
    stream = np.concatenate(orders)
    for start in range(0, len(stream), num_images):  # each pass over the stream is a permutation
        assert sorted(stream[start : start + num_images]) == list(range(num_images))
    assert not np.array_equal(orders[0], orders[1])


def test_order_of_whole_epochs_and_of_one_image_left():
    for num_images, drawn in ((64, 64), (65, 64), (7, 4)):
        seen = np.concatenate([epoch_order(jax.random.key(1), e, num_images, drawn) for e in range(num_images)])
        assert set(np.bincount(seen)) == {drawn}


@pytest.mark.parametrize(("lane_devices", "width"), [(1, 1), (2, 1), pytest.param(4, 1, marks=pytest.mark.slow)])
def test_lane_of_a_sweep_is_bit_for_bit_the_run_alone(bars, alone, lane_devices, width):
    state, history = run(bars, lanes(4), lane_devices=lane_devices, width=width)
    for index, (single, single_history) in enumerate(alone):
        jax.tree.map(np.testing.assert_array_equal, lane(state, index), lane(single, 0))
        jax.tree.map(np.testing.assert_array_equal, lane(history[-1], index), lane(single_history[-1], 0))


@pytest.fixture(scope="module")
def gently_alone(bars):
    return [run(bars, [hyper], config=GENTLE, count=FEW) for hyper in lanes(4)]


@pytest.mark.parametrize(("lane_devices", "width"), [pytest.param(1, 3, marks=pytest.mark.slow), (2, 2)])
def test_lane_of_a_vmapped_sweep_is_the_run_alone_to_rounding(bars, gently_alone, lane_devices, width):
    state, _ = run(bars, lanes(4), lane_devices=lane_devices, width=width, config=GENTLE, count=FEW)
    for index, (single, _) in enumerate(gently_alone):
        assert_same(lane(state.params, index), lane(single.params, 0), 1e-4)


@pytest.mark.parametrize("batch_devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_batch_split_over_devices_is_the_run_on_one(bars, gently_alone, batch_devices):
    state, history = run(bars, lanes(1), batch_devices=batch_devices, config=GENTLE, count=FEW)
    single, single_history = gently_alone[0]
    assert_same(state.params, single.params, 1e-4)
    assert_same(state.batch_stats, single.batch_stats, 1e-4)
    for got, want in zip(history, single_history, strict=True):
        np.testing.assert_array_equal(got.train.count, want.train.count)
        np.testing.assert_allclose(got.train.loss, want.train.loss, rtol=1e-5)


@pytest.mark.parametrize(("num_cores", "sparing"), [(1, (True, True)), (2, (False, True)), (8, (False, False))])
def test_devices_of_one_core_spare_memory(monkeypatch, num_cores, sparing):
    monkeypatch.setattr(backend, "cores", lambda: num_cores)
    for devices, want in zip((jax.devices()[:1], jax.devices()[:2]), sparing, strict=True):
        trainer = Trainer(Program(CONFIG, FEW), make_mesh(devices))
        assert trainer.program.recompute is want
        assert ("xla_cpu_scheduler_type" in backend.training_options(devices)) is want


def test_training_is_compiled_with_its_options(bars, monkeypatch):
    monkeypatch.setattr(backend, "training_options", lambda devices: {"no_such_option": "1"})
    trainer = Trainer(Program(CONFIG, FEW), make_mesh(jax.devices()[:1]))
    hyper = trainer.put_lanes(Hyperparameters(*([x] for x in lanes(1)[0])))
    splits = trainer.put_shared((split(bars, "train", FEW), split(bars, "test"), None))
    with pytest.raises(Exception, match="no_such_option"):
        trainer.compile(hyper, splits)


def test_it_learns_and_judges_all_images(alone):
    _, history = alone[0]
    assert int(history[0].train.count[0]) == 480  # 15 whole batches of 32
    assert int(history[0].test.count[0]) == 130
    assert float(history[-1].train.loss[0]) < 0.8 * float(history[0].train.loss[0])


def test_divergence_freezes_a_lane_and_touches_no_other(bars, alone):
    hypers = lanes(4)
    hypers[1] = hypers[1]._replace(learning_rate=1e38)
    state, _ = run(bars, hypers)
    assert (state.diverged_at[[0, 2, 3]] == -1).all() and 0 < state.diverged_at[1] < 15
    assert state.step[1] == state.diverged_at[1], "steps were taken after the divergence"
    for index in (0, 2, 3):
        jax.tree.map(np.testing.assert_array_equal, lane(state, index), lane(alone[index][0], 0))


@functools.cache
def logits_before_training(program):
    """Draws seed 0's network; returns it, and the function that gives its logits in training."""
    numbers = jax.tree.map(jnp.float32, Hyperparameters.of(program.config))._replace(seed=jnp.uint32(0))
    state = jax.jit(lambda: create_train_state(program, numbers))()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return state, jax.jit(lambda x: model.Net().apply(variables, x, train=True, mutable=["batch_stats"])[0])


@pytest.mark.parametrize("batch_devices", [1, 2])
def test_metrics_are_those_of_the_step(bars, batch_devices):
    config = dataclasses.replace(GENTLE, augment=AugmentConfig(), model=ModelConfig())  # which compile for long
    hyper = Hyperparameters.of(config)
    state, [metrics] = run(bars, [hyper], batch_devices=batch_devices, config=config, count=32)  # one step
    before, apply = logits_before_training(Program(config, 32))
    changes = jax.tree.map(lambda new, old: np.square(np.float64(new[0]) - old).sum(), state.params, before.params)
    values = means(metrics)
    assert values["train_update_norm"][0] == pytest.approx(sum(jax.tree.leaves(changes)) ** 0.5, rel=1e-4)
    rate = hyper.learning_rate * hyper.initial_fraction  # Nesterov's first step: rate (1 + momentum) gradient
    first = rate * (1 + hyper.momentum) * values["train_gradient_norm"][0]
    assert values["train_update_norm"][0] == pytest.approx(first, rel=1e-5)
    logits, labels = apply(bars.train_images[:32]), bars.train_labels[:32]
    losses = steps.cross_entropy(logits, labels, 10, hyper.label_smoothing)
    assert values["train_loss"][0] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert values["train_accuracy"][0] == (np.argmax(logits, 1) == labels).mean()


def test_same_seed_means_same_weights_order_and_masks():
    program = Program(CONFIG, 500)
    hypers = [Hyperparameters(*map(np.float32, h))._replace(seed=np.uint32(0)) for h in lanes(2)]
    create = jax.jit(lambda hyper: create_train_state(program, hyper))
    first, second = map(create, hypers)
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_epoch_is_traced_once(bars):
    program = Program(dataclasses.replace(CONFIG, num_epochs=1), 500)
    trainer = Trainer(program, make_mesh(jax.devices()[:1]))
    hyper = trainer.put_lanes(Hyperparameters(*([x] for x in lanes(1)[0])))
    train = trainer.put_shared(split(bars, "train"))
    with pytest.raises(AssertionError, match="traced"):
        for dtype in (jnp.int32, jnp.uint32):
            trainer.train.lower(hyper, trainer.create(hyper), dtype(0), train)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_epoch_lowers_for_accelerators(platform, precision):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, precision=precision))
    program = Program(config, 60_000, platform=platform)
    hyper = jax.tree.map(jnp.float32, Hyperparameters.of(config))._replace(seed=jnp.uint32(0))
    train = Split(jax.ShapeDtypeStruct((60_000, 28, 28, 1), jnp.uint8), jax.ShapeDtypeStruct((60_000,), jnp.int32))

    def epoch(hyper, state, number, train):
        state, metrics = train_epoch(program, hyper, state, train, number)
        return state, metrics, evaluate(program, state, train)

    state = jax.eval_shape(lambda h: create_train_state(program, h), hyper)
    exported = jax.export.export(jax.jit(epoch), platforms=[platform])(hyper, state, jnp.int32(0), train)
    assert exported.platforms == (platform,)
    assert ("stablehlo.convolution" in exported.mlir_module()) == (platform == "tpu")
    del exported


def equations(jaxpr):
    """Yields all equations of a jaxpr, with those of the functions that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            yield from equations(inner) if hasattr(inner, "eqns") else ()


def test_augmentation_and_dropout_cost_nothing_when_off(bars):
    config = TrainConfig(num_epochs=1, batch_size=50, augment=AugmentConfig())
    program = Program(config, 500)
    hyper = jax.tree.map(jnp.float32, Hyperparameters.of(config))._replace(seed=jnp.uint32(0))
    state = jax.eval_shape(lambda: create_train_state(program, hyper))
    made = jax.make_jaxpr(lambda s: train_epoch(program, hyper, s, split(bars, "train"), jnp.int32(0)))(state)
    [scan] = [equation for equation in equations(made.jaxpr) if equation.primitive.name == "scan"]
    names = {equation.primitive.name for equation in equations(scan.params["jaxpr"].jaxpr)}
    assert "dot_general" in names and not any(name.startswith(("random_", "threefry")) for name in names)
