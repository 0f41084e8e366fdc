"""Epochs and lanes: order, evaluation of every image, devices and widths that change nothing, divergence."""

import dataclasses
import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jax_s6 import backend
from jax_s6.config import RECIPES, AugmentConfig, Hyperparameters, ModelConfig, StaticSettings, TrainConfig
from jax_s6.network.net import Net
from jax_s6.training.epoch import Split, epoch_order, evaluate, means, train_epoch
from jax_s6.training.loss import cross_entropy
from jax_s6.training.state import Keys, Program, create_train_state
from jax_s6.training.trainer import Trainer, make_mesh

# Everything on: augmentation that ends, dropout, momentum, a schedule.
CONFIG = dataclasses.replace(
    RECIPES["best"],
    batch_size=32,
    num_epochs=10,
    label_smoothing=0.05,
    augment=AugmentConfig(rotation=10.0, shift=2.0, scale=0.1, elastic=0.5, anneal_fraction=0.5),
    model=ModelConfig(dropout_conv1=0.1, dropout_conv2=0.1, dropout_conv3=0.1),
)
PLAIN = dataclasses.replace(CONFIG, augment=AugmentConfig(), model=ModelConfig())  # which compiles in half the time
NUM_TRAIN = 100  # three steps per epoch, and four images that are left over


def make_trainer(config=PLAIN, num_train=NUM_TRAIN, lane_devices=1, batch_devices=1, width=1):
    program, devices = Program(StaticSettings.of(config), num_train), jax.devices()[: lane_devices * batch_devices]
    return Trainer(program, make_mesh(devices, lane_devices), width)


def put_lanes(trainer, hypers):
    return trainer.put_lanes(Hyperparameters(*(np.stack(x) for x in zip(*hypers, strict=True))))


def make_split(dataset, part, count=None):
    return Split(*(jnp.asarray(getattr(dataset, f"{part}_{name}")[:count]) for name in ("images", "labels")))


@pytest.fixture(scope="module")
def run(bars):
    """Returns a function that trains lanes, and compiles the programs of each arrangement of lanes once.

    Batches of 32 consist of two chunks, as larger batches consist of chunks of at least 64 images.
    """

    @functools.cache
    def prepare(num_lanes, lane_devices, batch_devices, width):
        trainer = make_trainer(CONFIG, NUM_TRAIN, lane_devices, batch_devices, width)
        splits = trainer.put_shared((make_split(bars, "train", NUM_TRAIN), make_split(bars, "test"), None))
        return trainer, splits, trainer.compile(put_lanes(trainer, lanes(num_lanes)), splits)

    def run(hypers, lane_devices=1, batch_devices=1, width=1, num_epochs=CONFIG.num_epochs):
        """Returns the initial states, the final states and the epochs' metrics."""
        trainer, splits, compiled = prepare(len(hypers), lane_devices, batch_devices, width)
        hyper, history = put_lanes(trainer, hypers), []
        state = compiled.create(hyper)
        initial = jax.device_get(state)
        for epoch in range(num_epochs):
            state, metrics = compiled.epoch(hyper, state, jnp.int32(epoch), *splits)
            history.append(jax.device_get(metrics))
        return initial, jax.device_get(state), history

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "num_chunks", lambda size, target=None: 2 if size == CONFIG.batch_size else 1)
        yield run


def lanes(count, **changes):
    base = Hyperparameters.of(CONFIG)._replace(**changes)
    return [base._replace(learning_rate=0.02 * (i + 1), seed=i % 2, momentum=0.8 + 0.02 * i) for i in range(count)]


def lane(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def assert_same(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def assert_close(got, want, tolerance=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, want)


@pytest.fixture(scope="module")
def alone(run):
    return [run([hyper]) for hyper in lanes(4)]


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def epoch_orders(key, num_epochs, num_images, num_drawn):
    return jax.lax.map(lambda epoch: epoch_order(key, epoch, num_images, num_drawn), jnp.arange(num_epochs))


def test_epochs_show_every_image_equally_often():
    num_images, drawn = 50, 48
    orders = np.asarray(epoch_orders(jax.random.key(0), 25, num_images, drawn))
    stream = np.concatenate(orders)
    for start in range(0, len(stream), num_images):  # each pass over the stream is a permutation
        assert sorted(stream[start : start + num_images]) == list(range(num_images))
    assert not np.array_equal(orders[0], orders[1])


def test_order_of_whole_epochs_and_of_one_image_left():
    for num_images, drawn in ((64, 64), (65, 64), (7, 4)):
        seen = epoch_orders(jax.random.key(1), num_images, num_images, drawn)
        assert set(np.bincount(np.ravel(seen))) == {drawn}


@pytest.mark.slow  # tests/train/test_same_answer.py and tests/sweep/test_run.py compare the lanes of two devices
@pytest.mark.parametrize("lane_devices", [1, 2, 4])
def test_lane_of_a_sweep_is_bit_for_bit_the_run_alone(run, alone, lane_devices):
    found = run(lanes(4), lane_devices)
    for index, single in enumerate(alone):
        assert_same(lane(found, index), lane(single, 0))


# Three steps at nearly the full rate: rounding has not grown yet.
FEW_STEPS = {"num_epochs": 1}
GENTLE = {"warmup_fraction": 0.02}


@pytest.fixture(scope="module")
def gently_alone(run):
    return [run([hyper], **FEW_STEPS) for hyper in lanes(4, **GENTLE)]


@pytest.mark.parametrize(("lane_devices", "width"), [pytest.param(1, 3, marks=pytest.mark.slow), (2, 2)])
def test_lane_of_a_vmapped_sweep_is_the_run_alone_to_rounding(run, gently_alone, lane_devices, width):
    _, state, [metrics] = run(lanes(4, **GENTLE), lane_devices, width=width, **FEW_STEPS)
    for index, (_, single, [single_metrics]) in enumerate(gently_alone):
        assert_close(lane(state.params, index), lane(single.params, 0))
        assert_close(lane(metrics, index), lane(single_metrics, 0))


@pytest.mark.slow  # tests/train/test_same_answer.py compares two devices with one
@pytest.mark.parametrize("batch_devices", [2, 4])
def test_batch_split_over_devices_is_the_run_on_one(run, gently_alone, batch_devices):
    _, state, [metrics] = run(lanes(1, **GENTLE), batch_devices=batch_devices, **FEW_STEPS)
    _, single, [single_metrics] = gently_alone[0]
    assert_close(state.params, single.params)
    assert_close(state.batch_stats, single.batch_stats)
    assert_close(metrics, single_metrics)
    np.testing.assert_allclose(metrics.train.loss, single_metrics.train.loss, rtol=1e-5)


@pytest.mark.parametrize(("num_cores", "sparing"), [(1, (True, True)), (2, (False, True)), (8, (False, False))])
def test_devices_of_one_core_spare_memory(monkeypatch, num_cores, sparing):
    monkeypatch.setattr(backend, "cores", lambda: num_cores)
    for num_devices, want in enumerate(sparing, start=1):
        assert make_trainer(batch_devices=num_devices).program.recompute is want
        assert ("xla_cpu_scheduler_type" in backend.training_options(jax.devices()[:num_devices])) is want


def test_training_is_compiled_with_its_options(bars, monkeypatch):
    monkeypatch.setattr(backend, "training_options", lambda devices: {"no_such_option": "1"})
    trainer = make_trainer()
    hyper, train = put_lanes(trainer, lanes(1)), trainer.put_shared(make_split(bars, "train", NUM_TRAIN))
    lowered = trainer.train.lower(hyper, jax.eval_shape(trainer.create, hyper), jnp.int32(0), train)
    with pytest.raises(Exception, match="no_such_option"):
        lowered.compile()


def test_it_learns_and_evaluates_all_images(alone):
    _, _, history = alone[0]
    assert int(history[0].train.count[0]) == 96  # three whole batches of 32
    assert int(history[0].test.count[0]) == 130
    assert float(history[-1].train.loss[0]) < 0.8 * float(history[0].train.loss[0])


def test_divergence_freezes_a_lane_and_touches_no_other(run):
    """Also not the lane that the same device computes at the same time."""
    hypers = lanes(4)
    _, want, _ = run(hypers, lane_devices=2, width=2)
    hypers[1] = hypers[1]._replace(learning_rate=1e38)
    _, state, _ = run(hypers, lane_devices=2, width=2)
    assert (state.diverged_at[[0, 2, 3]] == -1).all() and 0 < state.diverged_at[1] < 15
    assert state.step[1] == state.diverged_at[1], "steps were taken after the divergence"
    for index in (0, 2, 3):
        assert_same(lane(state, index), lane(want, index))


def train_plainly(run, **changes):
    """Trains a lane for an epoch without dropout and augmentation; returns its states and metrics, without lanes."""
    initial, state, [metrics] = run([Hyperparameters.of(PLAIN)._replace(**changes)], num_epochs=1)
    return lane(initial, 0), lane(state, 0), {name: value[0] for name, value in means(metrics).items()}


def test_losses_and_gradients_are_those_of_the_steps(run, bars):
    """The parameters stay where they are; another test compares the metrics of a split batch with these."""
    rate = 1e-9
    initial, _, values = train_plainly(run, learning_rate=rate, momentum=0.0, initial_fraction=1.0, final_fraction=1.0)
    assert values["train_update_norm"] == pytest.approx(rate * values["train_gradient_norm"], rel=1e-5)

    @jax.jit
    def loss_and_accuracy(params, batch):
        variables = {"params": params, "batch_stats": initial.batch_stats}
        logits, _ = Net().apply(variables, batch.images, train=True, mutable=["batch_stats"])
        loss = cross_entropy(logits, batch.labels, 10, CONFIG.label_smoothing).mean()
        return loss, (logits.argmax(1) == batch.labels).mean()

    order = epoch_order(Keys.of(0).order, 0, NUM_TRAIN, 96).reshape(3, 32)
    batches = [jax.tree.map(lambda x, indices=indices: x[indices], make_split(bars, "train")) for indices in order]
    losses, accuracies = zip(*(loss_and_accuracy(initial.params, batch) for batch in batches), strict=True)
    assert values["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert values["train_accuracy"] == pytest.approx(np.mean(accuracies), rel=1e-6)


def test_update_norm_is_that_of_the_parameters_change(run):
    """The rate falls from 0.01 to almost nothing after the first of three steps."""
    initial, state, values = train_plainly(run, learning_rate=1e-9, initial_fraction=1e7, warmup_fraction=0.01)
    changes = jax.tree.map(lambda new, old: np.square(np.float64(new) - old).sum(), state.params, initial.params)
    assert 3 * values["train_update_norm"] == pytest.approx(sum(jax.tree.leaves(changes)) ** 0.5, rel=1e-4)


def test_same_seed_means_same_weights(run):
    initial, _, _ = run(lanes(4), lane_devices=2, width=2, num_epochs=0)
    assert_same(lane(initial.params, 2), lane(initial.params, 0))
    kernels = initial.params["conv1"]["conv_0"]["kernel"]
    assert not np.array_equal(kernels[0], kernels[1]), "another seed"


def test_epoch_is_traced_once(bars):
    trainer = make_trainer()
    hyper, train = put_lanes(trainer, lanes(1)), trainer.put_shared(make_split(bars, "train", NUM_TRAIN))
    state = jax.eval_shape(trainer.create, hyper)
    with pytest.raises(AssertionError, match="traced"):
        for dtype in (jnp.int32, jnp.uint32):
            trainer.train.trace(hyper, state, dtype(0), train)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_epoch_lowers_for_accelerators(platform, precision):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, precision=precision))
    program = Program(StaticSettings.of(config), 60_000, platform=platform)
    hyper = jax.tree.map(jnp.float32, Hyperparameters.of(config))._replace(seed=jnp.uint32(0))
    train = Split(jax.ShapeDtypeStruct((60_000, 28, 28, 1), jnp.uint8), jax.ShapeDtypeStruct((60_000,), jnp.int32))

    def epoch(hyper, state, number, train):
        state, metrics = train_epoch(program, hyper, state, train, number)
        return state, metrics, evaluate(program, state, train)

    state = jax.eval_shape(lambda h: create_train_state(program, h), hyper)
    exported = jax.export.export(jax.jit(epoch), platforms=[platform])(hyper, state, jnp.int32(0), train)
    assert exported.platforms == (platform,)
    assert ("stablehlo.convolution" in exported.mlir_module()) == (platform == "tpu")


def equations(jaxpr):
    """Yields all equations of a jaxpr, with those of the functions that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            yield from equations(inner) if hasattr(inner, "eqns") else ()


def test_augmentation_and_dropout_cost_nothing_when_off(bars):
    config = TrainConfig(num_epochs=1, batch_size=50, augment=AugmentConfig())
    program = Program(StaticSettings.of(config), 500)
    hyper = jax.tree.map(jnp.float32, Hyperparameters.of(config))._replace(seed=jnp.uint32(0))
    state = jax.eval_shape(lambda: create_train_state(program, hyper))
    made = jax.make_jaxpr(lambda s: train_epoch(program, hyper, s, make_split(bars, "train"), jnp.int32(0)))(state)
    [scan] = [equation for equation in equations(made.jaxpr) if equation.primitive.name == "scan"]
    names = {equation.primitive.name for equation in equations(scan.params["jaxpr"].jaxpr)}
    assert "dot_general" in names and not any(name.startswith(("random_", "threefry")) for name in names)
