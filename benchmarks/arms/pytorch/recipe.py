"""PyTorch training real epochs of a recipe, with its optimizer, schedule and augmentation."""

import functools
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.arms import recipes
from benchmarks.arms.pytorch import images as inputs
from benchmarks.arms.pytorch.network import Net
from benchmarks.arms.pytorch.step import DEVICE, Batches, count, make_net, synchronise, tensors
from benchmarks.worker import Task
from jax_s6.config import AugmentConfig, Hyperparameters, TrainConfig
from jax_s6.settings import replace
from jax_s6.training import optimizers


class Run:
    """A training run of a recipe, eager and in channels_last, from PyTorch's own initial weights."""

    def __init__(self, config: TrainConfig, num_images: int):
        """Draw the weights.

        Raises:
            ValueError: The recipe has a setting that this class does not.
        """
        recipes.require_torch_can(config)
        torch.manual_seed(config.seed)
        steps = num_images // config.batch_size
        self.config, self.steps = config, steps * config.num_epochs
        schedule = optimizers.make_schedule(config.optimizer, Hyperparameters.of(config), self.steps, steps)
        self.rates = np.asarray(schedule(np.arange(self.steps))).tolist()
        rates = (config.model.dropout_conv1, config.model.dropout_conv2, config.model.dropout_conv3)
        self.net = make_net("channels_last", rates)
        momentum, nesterov = config.optimizer.momentum, config.optimizer.nesterov
        self._optimizer = torch.optim.SGD(self.net.parameters(), 0.0, momentum, nesterov=nesterov, fused=True)
        self._step = 0

    @property
    def progress(self) -> float:
        """The number of steps taken, as a fraction of the whole run."""
        return self._step / self.steps

    def train(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Train on normalised batches."""
        self.net.train()
        for x, y in batches:
            for group in self._optimizer.param_groups:
                group["lr"] = self.rates[min(self._step, self.steps - 1)]
            self._optimizer.zero_grad()
            cross_entropy(self.net(x), y).backward()
            self._optimizer.step()
            self._step += 1
        synchronise()

    def accuracy(self, batches: Batches) -> float:
        """Return the fraction of correct predictions."""
        self.net.eval()
        with torch.inference_mode():
            correct = sum(int((self.net(x).argmax(1) == y).sum()) for x, y in batches)
        return correct / sum(len(y) for _, y in batches)

    def shuffled(self, x: torch.Tensor, y: torch.Tensor) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Yield whole batches in a new order, augmented as the run's progress demands."""
        size, augment = self.config.batch_size, self.config.augment
        order = torch.randperm(len(y), device=DEVICE)[: len(y) // size * size]
        for indices in order.split(size):
            images = x[indices]
            if augment.enabled:
                images = inputs.warp(images, recipes.annealed(augment, self.progress))
            yield images.contiguous(memory_format=torch.channels_last), y[indices]


def epoch(*, images: int, source: str) -> Task:
    """Train an epoch with images from ``memory``, from a DataLoader (``loader``), or as the ``notebook`` does."""
    config, dataset = recipes.named("best"), recipes.first_images(images)
    run = Run(config, images)
    if source == "memory":
        x, y = tensors(dataset.train_images, dataset.train_labels)
        return Task(lambda n: run.train(run.shuffled(x, y)), images, count(run.net), repeatable=False)
    if source == "loader":
        items = inputs.Items(dataset, config.augment)
        loader = torch.utils.data.DataLoader(items, config.batch_size, True, num_workers=2, drop_last=True)
        return Task(
            lambda n: run.train((x.to(DEVICE), y.to(DEVICE)) for x, y in loader),
            images,
            count(run.net),
            repeatable=False,
        )
    loader = torch.utils.data.DataLoader(inputs.Items(dataset, AugmentConfig()), 128, shuffle=True)
    net = Net((0.25, 0.25, 0.25))
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)
    return Task(lambda n: _notebook_epoch(net, optimizer, loader), images, count(net), repeatable=False)


def _notebook_epoch(net: Any, optimizer: Any, loader: Any) -> None:
    """Train as the loop of the assignment's notebook: the loss of a log-softmax, and its running score."""
    net.train()
    correct = seen = 0
    for x, y in loader:
        optimizer.zero_grad()
        prediction = torch.log_softmax(net(x), 1)
        loss = torch.nn.functional.nll_loss(prediction, y)
        loss.backward()
        optimizer.step()
        correct += (prediction.argmax(1) == y).sum().item()
        seen += len(y)
        loss.item()


@functools.cache
def _history(recipe: str, seed: int) -> list[dict[str, Any]]:
    """Train a run, which serves all accuracies."""
    return train_run(recipe, seed, recipes.first_images(recipes.NUM_IMAGES))


def run(*, percent: float, recipe: str) -> Task:
    """Look up when a run of the recipe reached an accuracy. Round k has seed k."""
    num_params = count(Run(recipes.named(recipe), recipes.NUM_IMAGES).net)
    return recipes.task_per_seed(lambda seed: recipes.reached(_history(recipe, seed), percent), 1, num_params)


def train_run(recipe: str, seed: int, dataset: Any, **changes: Any) -> list[dict[str, Any]]:
    """Train, and evaluate after each epoch; return one row per epoch."""
    config = replace(recipes.named(recipe), {"seed": seed, **changes})
    run, history = Run(config, len(dataset.train_labels)), []
    x, y = tensors(dataset.train_images, dataset.train_labels)
    test = list(zip(*(part.split(1000) for part in tensors(dataset.test_images, dataset.test_labels)), strict=True))
    for number in range(config.num_epochs):
        start = time.perf_counter()
        run.train(run.shuffled(x, y))
        accuracy = run.accuracy(test)
        history.append({"epoch": number + 1, "test_accuracy": accuracy, "seconds": time.perf_counter() - start})
    return history


def quality(*, learning_rate: float) -> Task:
    """Train one epoch at a learning rate. Round k has seed k."""
    dataset = recipes.first_images(recipes.NUM_IMAGES)

    def sample(seed: int) -> dict[str, Any]:
        [row] = train_run("quality", seed, dataset, learning_rate=learning_rate)
        return {"seconds": row["seconds"], "percent": 100 * row["test_accuracy"]}

    return recipes.task_per_seed(
        sample, recipes.NUM_IMAGES, count(Run(recipes.named("quality"), recipes.NUM_IMAGES).net)
    )
