"""The arms: the same network, images and recipe in each framework, and the losses that each must have."""

import dataclasses
import threading

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.arms import work
from jax_s6.network import net as model

BATCH = 64


@pytest.fixture(scope="module")
def reference_losses() -> list[float]:
    """The losses that all arms are compared with."""
    import jax

    from benchmarks.arms import lax

    with jax.enable_x64(True):
        return lax.reference(batch=BATCH, kind="train").losses


def test_inputs_are_the_models():
    assert (work.MEAN, work.STD) == (model.MEAN, model.STD)
    assert work.num_params() == harness.NUM_PARAMS == model.NUM_PARAMS


@pytest.mark.torch
def test_reference_losses_are_pytorchs_in_float64(reference_losses):
    torch = pytest.importorskip("torch")
    from benchmarks.arms.pytorch.network import Net

    torch.set_num_threads(1)  # the test run has a worker per core
    net = Net().double()
    net.load_state_dict({k: torch.from_numpy(v).double() for k, v in work.state_dict().items()}, strict=False)
    images, labels = work.digits(BATCH)
    x = torch.from_numpy(((images.astype(np.float64) / 255 - work.MEAN) / work.STD).transpose(0, 3, 1, 2).copy())
    optimizer, want = torch.optim.SGD(net.parameters(), work.LEARNING_RATE, work.MOMENTUM), []
    for _ in range(2):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net.train()(x), torch.from_numpy(labels).long())
        loss.backward()
        optimizer.step()
        want.append(float(loss.detach()))
    np.testing.assert_allclose(reference_losses, want, rtol=1e-9)


def test_augmented_step_of_ours_has_the_reference_losses(reference_losses):
    """The check that the suite makes before it measures ours; bf16 is checked with the sweep below."""
    import jax

    from benchmarks.arms import ours
    from jax_s6.training import trainer as loop

    losses = ours.check_losses(ours.make_config(BATCH, "float32", augmented=True), loop.make_mesh(jax.devices()[:1]))
    harness.check_losses({"losses": losses}, reference_losses, harness.TOLERANCES["float32"])


def test_sweep_in_bf16_has_the_reference_losses_and_is_traced(tmp_path, reference_losses):
    from benchmarks.arms import ours, roofline

    task = ours.sweep(lanes=2, batch=BATCH, images=BATCH, precision="bf16")  # the program of its own check
    harness.check_size({"num_params": task.num_params})
    harness.check_losses({"losses": task.losses}, reference_losses, harness.TOLERANCES["bf16"])
    assert task.profile is not None
    task.profile(str(tmp_path))
    rows = roofline.operations(str(tmp_path))
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[0]["seconds"] > 0 and rows[0]["count"] >= 1 and len(rows) <= roofline.TOP + 1


def test_our_lanes_share_batches_over_the_devices_that_an_arm_names():
    from benchmarks.arms import ours

    digits = np.zeros((64, 28, 28, 1), np.uint8), np.zeros(64, np.int32)

    def devices(number: int | None) -> int:
        config = ours.make_config(64, "float32")
        return len(ours.group_trainer(config, [0.01], digits, number, None).arrangement.devices)

    assert [devices(None), devices(1), devices(2)] == [1, 1, 2]


@pytest.mark.torch
def test_pytorchs_modes(monkeypatch):
    torch = pytest.importorskip("torch")
    from benchmarks.arms.pytorch import step

    monkeypatch.setattr(torch, "compile", lambda function: "compiled")  # importing its compiler takes seconds
    for mode in ("eager", "compiled", "eager graph", "compiled graph"):
        trainer = step.make_trainer(mode, "contiguous", "float32")
        assert type(trainer) is (step.GraphTrainer if "graph" in mode else step.Trainer)
        assert (trainer._loss == "compiled") == ("compiled" in mode)


def test_recipe_that_pytorch_lacks_is_refused():
    from benchmarks.arms import recipes
    from jax_s6.settings import replace

    recipes.require_torch_can(recipes.QUALITY)
    recipes.require_torch_can(recipes.named("best"))
    for name, value in (("label_smoothing", 0.1), ("weight_decay", 1e-4), ("optimizer", "adamw"), ("holdout", 5000)):
        with pytest.raises(ValueError, match=name):
            recipes.require_torch_can(replace(recipes.QUALITY, {name: value}))


@pytest.mark.torch
def test_warps_of_both_frameworks_are_alike():
    """Not the same draws, but the same distribution: the mean image, and how far images scatter about it."""
    torch = pytest.importorskip("torch")
    import jax

    from benchmarks.arms import recipes
    from benchmarks.arms.pytorch import images as inputs
    from benchmarks.arms.pytorch import step
    from jax_s6.config import RECIPES, AugmentConfig, Hyperparameters
    from jax_s6.training.augmentation import augment

    torch.set_num_threads(1)
    torch.manual_seed(0)
    strengths = AugmentConfig(rotation=20.0, shift=3.0, scale=0.2, shear=10.0, elastic=1.5, anneal_fraction=0.5)
    halved = recipes.annealed(strengths, 0.75)
    assert (halved.rotation, halved.elastic, halved.anneal_fraction) == (10.0, 0.75, 0.5)
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[0, 6:22, 12:16] = 255
    images = np.repeat(image, 3000, 0)
    hyper = Hyperparameters.of(dataclasses.replace(RECIPES["best"], augment=strengths))
    keys = jax.random.split(jax.random.key(0), 3000)
    ours = np.asarray(jax.jit(augment)(keys, images, hyper))[..., 0] / 255
    x, _ = step.tensors(images, np.zeros(3000, np.int32))
    theirs = inputs.warp(x, strengths).numpy()[:, 0] * work.STD + work.MEAN
    np.testing.assert_allclose(theirs.mean(0), ours.mean(0), atol=0.06)
    assert theirs.std(0).mean() == pytest.approx(ours.std(0).mean(), rel=0.05)


@pytest.mark.torch
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "warmup_cosine", "one_cycle"])
def test_rates_of_both_frameworks_are_the_same(schedule):
    torch = pytest.importorskip("torch")
    import jax.numpy as jnp

    from benchmarks.arms import recipes
    from benchmarks.arms.pytorch.recipe import Run
    from jax_s6.config import Hyperparameters
    from jax_s6.settings import replace
    from jax_s6.training import optimizers

    config = replace(recipes.QUALITY, {"schedule": schedule, "batch_size": 2, "num_epochs": 2})
    run, rates = Run(config, 10), []  # five steps per epoch
    batch = torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.long)
    for _ in range(10):
        run.train([batch])
        rates.append(run._optimizer.param_groups[0]["lr"])
    hyper, progress = Hyperparameters.of(config), jnp.arange(10.0) / 10
    want = 0.1 * optimizers.relative_rate(schedule, hyper, progress, 2 * progress)
    np.testing.assert_allclose(rates, want, rtol=1e-5, atol=1e-7)
    assert run.progress == 1


def test_each_thread_reads_what_its_neighbour_wrote(monkeypatch):
    from benchmarks.arms import roofline

    wrote, read = {}, []

    class Spy(np.ndarray):
        def fill(self, value):
            wrote[threading.get_ident()] = self.ctypes.data
            super().fill(value)

        def max(self, *args, **kwargs):
            whose = next(thread for thread, address in wrote.items() if address == self.ctypes.data)
            read.append((float(self[0]), whose == threading.get_ident()))  # no assertion: others wait for this thread
            return super().max(*args, **kwargs)

    monkeypatch.setattr(roofline.backend, "cores", lambda: 3)
    monkeypatch.setattr(roofline.np, "ones", lambda shape, dtype: np.full(shape, -1, dtype).view(Spy))
    task = roofline.exchange(batch=64)
    assert task.run(2)["seconds"] > 0 and task.work == pytest.approx(3 * 4 * 2**20 / 1e9)
    assert read == [(0.0, False)] * 3 + [(1.0, False)] * 3, "what others wrote, when all have written"
