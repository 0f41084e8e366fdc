"""Parity with PyTorch itself: the same weights give the same logits, gradients, statistics and training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_s6.config import RECIPES, Hyperparameters, ModelConfig, OptimizerConfig, TrainConfig
from jax_s6.network import net as model
from jax_s6.network import weights
from jax_s6.training import step as steps
from jax_s6.training.state import Program

torch = pytest.importorskip("torch")
from benchmarks.arms.pytorch.network import Net  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)  # small batches, and the test run has a worker a core
BATCH = 64


def relative_error(got, want) -> float:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.fixture(scope="module")
def batches():
    """21 batches of real digits: uint8 [batch, 28, 28, 1], int32 [batch]."""
    from jax_s6 import data
    from jax_s6.config import DataConfig

    dataset = data.load(DataConfig(data_dir=data.EMBEDDED))
    return [
        (dataset.train_images[i : i + BATCH], dataset.train_labels[i : i + BATCH]) for i in range(0, 21 * BATCH, BATCH)
    ]


def to_torch(images, labels, dtype=np.float32):
    x = (images.astype(dtype) / 255 - model.MEAN) / model.STD
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels).long()


@pytest.fixture
def nets():
    """A PyTorch network with random weights and statistics, and the same as variables."""
    torch.manual_seed(0)
    net = Net()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return net, weights.from_torch_state_dict(net.state_dict())


def test_parameters_are_as_many_and_convert_both_ways(nets):
    net, variables = nets
    assert sum(p.numel() for p in net.parameters()) == model.NUM_PARAMS
    back = weights.to_torch_state_dict(variables)
    expected = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    assert back.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(back[name], value.numpy())


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])  # each gets another arrangement; all run here
def test_evaluation_logits(nets, batches, platform):
    net, variables = nets
    with torch.no_grad():
        want = net.eval()(to_torch(*batches[0])[0])
    got = jax.jit(model.create(ModelConfig(), platform=platform).apply)(variables, batches[0][0])
    assert relative_error(got, want) < 1e-5


@pytest.mark.parametrize(("platform", "smoothing"), [("cpu", 0.0), ("cpu", 0.1), ("cuda", 0.1), ("tpu", 0.0)])
def test_training_logits_loss_gradients_and_statistics(nets, batches, platform, smoothing):
    net, variables = nets
    (images, labels), (x, y) = batches[0], to_torch(*batches[0])
    logits = net.train()(x)
    log_probs = torch.log_softmax(logits, 1)
    nll, uniform = -log_probs[range(BATCH), y].mean(), -log_probs[:, :10].mean()
    loss = (1 - smoothing) * nll + smoothing * uniform  # PyTorch's own smoothing is over all 16 outputs
    if smoothing == 0:
        torch.testing.assert_close(loss, torch.nn.functional.nll_loss(log_probs, y))
    loss.backward()

    config = TrainConfig(batch_size=BATCH, label_smoothing=smoothing)
    program = Program(config, 60_000, platform=platform)
    hyper = Hyperparameters(*map(jnp.float32, Hyperparameters.of(config)))

    @jax.jit
    def run(params, batch_stats):
        loss_and_grads = jax.value_and_grad(steps.loss_fn, has_aux=True)
        logits, _ = program.net().apply(variables, images, train=True, mutable=["batch_stats"])
        return loss_and_grads(params, batch_stats, program, hyper, images, labels, None), logits

    ((got_loss, (batch_stats, _)), grads), got_logits = run(variables["params"], variables["batch_stats"])
    assert relative_error(got_logits, logits.detach()) < 1e-5
    assert float(got_loss) == pytest.approx(float(loss.detach()), rel=1e-5)
    got = weights.to_torch_state_dict({"params": grads, "batch_stats": batch_stats})
    for name, parameter in net.named_parameters():
        assert relative_error(got[name], parameter.grad) < 1e-4, name
    for name, buffer in net.named_buffers():
        if "num_batches" not in name:
            assert relative_error(got[name], buffer) < 1e-5, name


def make_step(program, hyper, dtype):
    """A training step of a network in ``dtype``, from (params, batch_stats, opt_state) to the same."""

    @jax.jit
    def step(params, batch_stats, opt_state, images, labels):
        def loss_fn(params):
            variables = {"params": params, "batch_stats": batch_stats}
            net = model.Net("matmul", dtype)
            logits, updates = net.apply(variables, images, train=True, mutable=["batch_stats"])
            return steps.cross_entropy(logits, labels, 10, 0.0).mean(), updates["batch_stats"]

        grads, new_stats = jax.grad(loss_fn, has_aux=True)(params)
        updates, opt_state = program.optimizer(hyper).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new_stats, opt_state

    return step


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_parameters_after_20_steps(nets, batches, nesterov, dtype, tolerance):
    """In float64, freely; in float32, each step from PyTorch's own state, and the median step is judged.

    In float32 a free run is chaotic: one ReLU or max-pool decided otherwise by rounding, and the runs part for good.
    PyTorch's own float32 so leaves its float64 by up to 0.6 within 20 steps.
    """
    net = nets[0].to(getattr(torch, dtype)).train()
    optimizer = torch_optimizer(net, nesterov)
    config = TrainConfig(optimizer=OptimizerConfig(learning_rate=0.01, weight_decay=5e-4, nesterov=nesterov))
    program, errors = Program(config, 60_000), []
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        hyper = Hyperparameters(*(jnp.asarray(value, dtype) for value in Hyperparameters.of(config)))
        variables = weights.from_torch_state_dict(net.state_dict(), np.dtype(dtype))
        state = (variables["params"], variables["batch_stats"], program.optimizer(hyper).init(variables["params"]))
        step = make_step(program, hyper, dtype)
        for images, labels in batches[:20]:
            images = images.astype(dtype)
            x, y = to_torch(images, labels, dtype)
            if dtype == "float32":
                variables = weights.from_torch_state_dict(net.state_dict())
                state = (variables["params"], variables["batch_stats"], state[2])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
            state = step(*state, images, labels)
            got = weights.to_torch_state_dict({"params": state[0], "batch_stats": state[1]})
            want = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
            errors.append(max(relative_error(got[name], value) for name, value in want.items()))
    assert (errors[-1] if dtype == "float64" else np.median(errors)) < tolerance, errors


def torch_optimizer(net, nesterov):
    """The reference's SGD, with weight decay on the kernels alone."""
    groups = [
        {"params": [p for p in net.parameters() if p.ndim == 4], "weight_decay": 5e-4},
        {"params": [p for p in net.parameters() if p.ndim != 4]},
    ]
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=nesterov)


def test_recipe_s6_is_the_references():
    config = RECIPES["s6"]
    assert (config.batch_size, config.num_epochs, config.augment.enabled) == (128, 19, False)
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.nesterov) == (0.01, 0.9, False)
    assert (optimizer.schedule, optimizer.weight_decay) == ("constant", 0.0)


def test_initial_weights_have_pytorchs_distribution():
    ours = weights.to_torch_state_dict(jax.jit(model.init)(jax.random.key(0)))
    for name, value in Net().state_dict().items():
        if value.ndim == 4:
            assert np.abs(ours[name]).max() == pytest.approx(float(value.abs().max()), rel=0.1)
            assert ours[name].std() == pytest.approx(float(value.std()), rel=0.1)
        elif "num_batches" not in name and ".0." not in name and ".3." not in name:
            np.testing.assert_array_equal(ours[name], value.numpy())
