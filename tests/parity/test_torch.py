"""Parity with PyTorch itself: the same weights give the same logits, gradients, statistics and training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_s6 import data
from jax_s6.config import (
    RECIPES,
    DataConfig,
    Hyperparameters,
    ModelConfig,
    OptimizerConfig,
    StaticSettings,
    TrainConfig,
)
from jax_s6.network import net, weights
from jax_s6.training import loss as steps
from jax_s6.training.state import Program

torch = pytest.importorskip("torch")
from benchmarks.arms.pytorch.network import Net  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)  # small batches, and the test run has one worker per core
BATCH = 64


def relative_error(got, want) -> float:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.fixture(scope="module")
def batches():
    """20 batches of real digits: uint8 [batch, 28, 28, 1], int32 [batch]."""
    dataset = data.load(DataConfig(data_dir=data.EMBEDDED))
    starts = range(0, 20 * BATCH, BATCH)
    return [(dataset.train_images[i : i + BATCH], dataset.train_labels[i : i + BATCH]) for i in starts]


def to_torch(images, labels, dtype=np.float32):
    x = (images.astype(dtype) / 255 - net.MEAN) / net.STD
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels).long()


@pytest.fixture
def nets():
    """A PyTorch network with random weights and statistics, and the same as variables."""
    torch.manual_seed(0)
    reference = Net()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return reference, weights.from_torch_state_dict(reference.state_dict())


def test_parameters_are_as_many_and_convert_both_ways(nets):
    reference, variables = nets
    assert sum(p.numel() for p in reference.parameters()) == net.NUM_PARAMS
    back = weights.to_torch_state_dict(variables)
    expected = {name: value for name, value in reference.state_dict().items() if "num_batches" not in name}
    assert back.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(back[name], value.numpy())


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])  # each has another network inside; all run here
def test_evaluation_logits(nets, batches, platform):
    reference, variables = nets
    with torch.no_grad():
        want = reference.eval()(to_torch(*batches[0])[0])
    got = jax.jit(net.create(ModelConfig(), platform=platform).apply)(variables, batches[0][0])
    assert relative_error(got, want) < 1e-5


@functools.cache
def training_pass(platform):
    """A compiled function from variables, hyper-parameters and a batch to loss_fn's results, gradients and logits."""
    program = Program(StaticSettings.of(TrainConfig(batch_size=BATCH)), 60_000, platform=platform)

    @jax.jit
    def run(variables, hyper, images, labels):
        loss_and_grads = jax.value_and_grad(steps.loss_fn, has_aux=True)
        logits, _ = program.net().apply(variables, images, train=True, mutable=["batch_stats"])
        batch = program, hyper, images, labels, None
        return loss_and_grads(variables["params"], variables["batch_stats"], *batch), logits

    return run


@pytest.mark.parametrize(("platform", "smoothing"), [("cpu", 0.0), ("cpu", 0.1), ("cuda", 0.1), ("tpu", 0.0)])
def test_training_logits_loss_gradients_and_statistics(nets, batches, platform, smoothing):
    reference, variables = nets
    x, y = to_torch(*batches[0])
    logits = reference.train()(x)
    log_probs = torch.log_softmax(logits, 1)
    nll, uniform = -log_probs[range(BATCH), y].mean(), -log_probs[:, :10].mean()
    loss = (1 - smoothing) * nll + smoothing * uniform  # PyTorch's own smoothing is over all 16 outputs
    if smoothing == 0:
        torch.testing.assert_close(loss, torch.nn.functional.nll_loss(log_probs, y))
    loss.backward()

    hyper = Hyperparameters(*map(np.float32, Hyperparameters.of(TrainConfig(label_smoothing=smoothing))))
    ((got_loss, (batch_stats, _)), grads), got_logits = training_pass(platform)(variables, hyper, *batches[0])
    assert relative_error(got_logits, logits.detach()) < 1e-5
    assert float(got_loss) == pytest.approx(float(loss.detach()), rel=1e-5)
    got = weights.to_torch_state_dict({"params": grads, "batch_stats": batch_stats})
    for name, parameter in reference.named_parameters():
        assert relative_error(got[name], parameter.grad) < 1e-4, name
    for name, buffer in reference.named_buffers():
        if "num_batches" not in name:
            assert relative_error(got[name], buffer) < 1e-5, name


@functools.cache
def float64_gradients():
    """A compiled function from variables in float64 and a batch to the gradients and the new statistics."""

    def loss_fn(params, variables, images, labels):
        variables = {**variables, "params": params}
        logits, updates = net.Net("matmul", "float64").apply(variables, images, train=True, mutable=["batch_stats"])
        return steps.cross_entropy(logits, labels, 10, 0.0).mean(), updates["batch_stats"]

    return jax.jit(lambda variables, *batch: jax.grad(loss_fn, has_aux=True)(variables["params"], variables, *batch))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_parameters_after_20_steps(nets, batches, nesterov, dtype, tolerance):
    """In float64, freely; in float32, each step starts from PyTorch's own state, and the median step is compared.

    In float32 a free run is chaotic: rounding decides one ReLU or max-pool differently, and the runs part for good.
    PyTorch's own float32 run differs from its float64 run by up to 0.6 within 20 steps.
    """
    reference = nets[0].to(getattr(torch, dtype)).train()
    torch_sgd = torch_optimizer(reference, nesterov)
    config = TrainConfig(optimizer=OptimizerConfig(learning_rate=0.01, weight_decay=5e-4, nesterov=nesterov))
    errors = []
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        hyper = Hyperparameters(*(jnp.asarray(value, dtype) for value in Hyperparameters.of(config)))
        optimizer = Program(StaticSettings.of(config), 60_000).optimizer(hyper)

        @jax.jit
        def update(grads, opt_state, params):
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        variables = weights.from_torch_state_dict(reference.state_dict(), np.dtype(dtype))
        opt_state = jax.jit(optimizer.init)(variables["params"])
        for images, labels in batches:
            x, y = to_torch(images, labels, dtype)
            if dtype == "float32":
                variables = weights.from_torch_state_dict(reference.state_dict())
                ((_, (batch_stats, _)), grads), _ = training_pass("cpu")(variables, hyper, images, labels)
            else:
                grads, batch_stats = float64_gradients()(variables, images.astype(dtype), labels)
            torch_sgd.zero_grad()
            torch.nn.functional.cross_entropy(reference(x), y).backward()
            torch_sgd.step()
            params, opt_state = update(grads, opt_state, variables["params"])
            variables = {"params": params, "batch_stats": batch_stats}
            got = weights.to_torch_state_dict(variables)
            want = {name: value for name, value in reference.state_dict().items() if "num_batches" not in name}
            errors.append(max(relative_error(got[name], value) for name, value in want.items()))
    assert (errors[-1] if dtype == "float64" else np.median(errors)) < tolerance, errors


def torch_optimizer(reference, nesterov):
    """The reference's SGD, with weight decay on the kernels alone."""
    groups = [
        {"params": [p for p in reference.parameters() if p.ndim == 4], "weight_decay": 5e-4},
        {"params": [p for p in reference.parameters() if p.ndim != 4]},
    ]
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=nesterov)


def test_recipe_s6_is_the_references():
    config = RECIPES["s6"]
    assert (config.batch_size, config.num_epochs, config.augment.enabled) == (128, 19, False)
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.nesterov) == (0.01, 0.9, False)
    assert (optimizer.schedule, optimizer.weight_decay) == ("constant", 0.0)


def test_initial_weights_have_pytorchs_distribution():
    ours = weights.to_torch_state_dict(jax.jit(net.init)(jax.random.key(0)))
    for name, value in Net().state_dict().items():
        if value.ndim == 4:
            assert np.abs(ours[name]).max() == pytest.approx(float(value.abs().max()), rel=0.1)
            assert ours[name].std() == pytest.approx(float(value.std()), rel=0.1)
        elif "num_batches" not in name and ".0." not in name and ".3." not in name:
            np.testing.assert_array_equal(ours[name], value.numpy())
