"""PyTorch's arms that train real epochs, with the recipe's optimizer, schedule and augmentation."""

import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from benchmarks.arms import recipes, work
from benchmarks.arms.recipe_ours import first_images, reached
from benchmarks.arms.torch_step import DEVICE, Batches, Net, parameters, synchronise
from benchmarks.worker import Task
from jax_s6.config import AugmentConfig, TrainConfig
from jax_s6.training.augmentation import elastic_waves

_kept: dict[Any, Any] = {}
"""Runs of this process, which serve several cases."""


class Run:
    """A training run of a recipe, eager and channels_last, PyTorch's own initial weights."""

    def __init__(self, config: TrainConfig, num_images: int):
        """Draws the weights.

        Raises:
            ValueError: PyTorch's arm cannot do what the recipe asks for.
        """
        recipes.require_torch_can(config)
        torch.manual_seed(config.seed)
        self.config, self.steps = config, num_images // config.batch_size * config.num_epochs
        rates = (config.model.dropout_conv1, config.model.dropout_conv2, config.model.dropout_conv3)
        self.net = Net(rates).to(DEVICE, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        kernels = [p for p in self.net.parameters() if p.ndim == 4]
        others = [p for p in self.net.parameters() if p.ndim != 4]
        groups = [{"params": kernels, "weight_decay": config.optimizer.weight_decay}]
        groups.append({"params": others, "weight_decay": 0.0})
        rate, momentum = config.optimizer.learning_rate, config.optimizer.momentum
        if config.optimizer.optimizer == "sgd":
            nesterov = config.optimizer.nesterov
            self._optimizer = torch.optim.SGD(groups, rate, momentum, nesterov=nesterov, fused=True)
        else:
            self._optimizer = torch.optim.AdamW(groups, rate, (momentum, 0.999), fused=True)
        self._step = 0

    @property
    def progress(self) -> float:
        """Steps taken over the steps of the whole run."""
        return self._step / self.steps

    def train(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Trains on normalised batches."""
        self.net.train()
        for x, y in batches:
            rate = recipes.relative_rate(self.config.optimizer, self.progress)
            for group in self._optimizer.param_groups:
                group["lr"] = self.config.optimizer.learning_rate * rate
            self._optimizer.zero_grad()
            self.loss(self.net(x), y).backward()
            self._optimizer.step()
            self._step += 1
        synchronise()

    def loss(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The cross-entropy over the 16 outputs, smoothed over the 10 real classes as ours is."""
        smoothing, log_probs = self.config.label_smoothing, logits.log_softmax(1)
        nll = cross_entropy(logits, y)
        return (1 - smoothing) * nll - smoothing * log_probs[:, :10].mean() if smoothing else nll

    def accuracy(self, batches: Batches) -> float:
        """The share of right predictions."""
        self.net.eval()
        with torch.inference_mode():
            right = sum(int((self.net(x).argmax(1) == y).sum()) for x, y in batches)
        return right / sum(len(y) for _, y in batches)


def tensors(images: Any, labels: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All images in memory, normalised, ``[n, 1, 28, 28]``."""
    x = torch.from_numpy(work.normalised(images).transpose(0, 3, 1, 2).copy()).to(DEVICE)
    return x, torch.from_numpy(labels).long().to(DEVICE)


def shuffled(x: torch.Tensor, y: torch.Tensor, run: Run) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Whole batches in a new order, augmented on the way as the run's progress has it."""
    size, augment = run.config.batch_size, run.config.augment
    order = torch.randperm(len(y), device=DEVICE)[: len(y) // size * size]
    for indices in order.split(size):
        images = x[indices]
        images = warp(images, recipes.annealed(augment, run.progress)) if augment.enabled else images
        yield images.contiguous(memory_format=torch.channels_last), y[indices]


def warp(x: torch.Tensor, strengths: AugmentConfig) -> torch.Tensor:
    """The affine and elastic warp of ``jax_s6.augment`` on a batch at once; the border is black."""
    amounts = torch.rand(5, len(x), device=x.device) * 2 - 1
    angle = math.radians(strengths.rotation) * amounts[0]
    shear = torch.tan(math.radians(strengths.shear) * amounts[1])
    zoom = 1 + strengths.scale * amounts[2]
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift_x, shift_y = (2 * strengths.shift / x.shape[-1] * amounts[i] for i in (3, 4))
    a, b, c, d = cos - shear * sin, -sin - shear * cos, sin, cos
    theta = torch.stack((a, b, -a * shift_x - b * shift_y, c, d, -c * shift_x - d * shift_y), 1).view(-1, 2, 3)
    black = -work.MEAN / work.STD
    grid = affine_grid(theta, list(x.shape), align_corners=False)
    if strengths.elastic:
        waves = torch.from_numpy(elastic_waves(x.shape[-1])).to(x.device)
        noise = torch.randn(len(x), 2, waves.shape[1], waves.shape[1], device=x.device)
        field = torch.einsum("bdij,yi,xj->byxd", noise, waves, waves)
        grid = grid + 2 * strengths.elastic / x.shape[-1] * field
    return grid_sample(x - black, grid, align_corners=False) + black


def epoch(*, images: int, source: str) -> Task:
    """Trains an epoch from one of three sources of images."""
    config = recipes.named("best")
    dataset = first_images(images)
    if source != "memory":
        return _loader_epoch(config, dataset, source)
    run = Run(config, images)
    x, y = tensors(dataset.train_images, dataset.train_labels)
    return Task(lambda n: run.train(shuffled(x, y, run)), images, parameters(run.net), repeatable=False)


def _loader_epoch(config: TrainConfig, dataset: Any, source: str) -> Task:
    """The input as tutorials have it: PIL images, transformed one by one in a DataLoader."""
    pairs = zip(dataset.train_images, dataset.train_labels, strict=True)
    images = [(Image.fromarray(image[..., 0]), int(label)) for image, label in pairs]
    if source == "loader":
        items = _Items(images, config.augment)
        loader = torch.utils.data.DataLoader(items, config.batch_size, True, num_workers=2, drop_last=True)
        run = Run(config, len(items))
        return Task(lambda n: run.train(loader), len(items), parameters(run.net), repeatable=False)
    loader = torch.utils.data.DataLoader(_Items(images, AugmentConfig()), 128, shuffle=True)
    net = Net((0.25, 0.25, 0.25))
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)
    return Task(lambda n: _notebook_epoch(net, optimizer, loader), len(images), parameters(net), repeatable=False)


class _Items(torch.utils.data.Dataset):
    """PIL images; warped, made tensors and normalised when asked for, by what torchvision's transforms call."""

    def __init__(self, items: list[Any], strengths: AugmentConfig):
        self._items, self._strengths = items, strengths

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        image, label = self._items[index]
        if self._strengths.enabled:
            image = image.transform(image.size, Image.Transform.AFFINE, self._matrix(), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(image)).float().div_(255)
        return x.sub_(work.MEAN).div_(work.STD)[None], label

    def _matrix(self) -> tuple[float, ...]:
        """Draws an inverse affine map about the image's centre, as torchvision's RandomAffine does."""
        angle, x, y, scale = (torch.rand(4) * 2 - 1).tolist()
        angle, zoom = math.radians(self._strengths.rotation) * angle, 1 + self._strengths.scale * scale
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        x, y = 14 + self._strengths.shift * x, 14 + self._strengths.shift * y
        return cos, sin, 14 - cos * x - sin * y, -sin, cos, 14 + sin * x - cos * y


def _notebook_epoch(net: Any, optimizer: Any, loader: Any) -> None:
    """The loop of the assignment's notebook: the loss of a log-softmax, and its running score."""
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


def run(*, percent: float, recipe: str) -> Task:
    """Looks up when a run of the recipe reached an accuracy; round k is seed k."""
    config = recipes.named(recipe)
    recipes.require_torch_can(config)
    dataset = first_images(60_000)
    seeds = iter(range(1_000))

    def sample(n: int) -> dict[str, Any]:
        seed = next(seeds)
        if seed not in _kept:
            _kept[seed] = train_run(recipe, seed, dataset)
        return reached(_kept[seed], percent)

    return Task(sample, 1, parameters(Run(config, 60_000).net), repeatable=False)


def train_run(recipe: str, seed: int, dataset: Any, **changes: Any) -> list[dict[str, Any]]:
    """Trains and judges epoch by epoch; returns a row an epoch."""
    from jax_s6.training.plan import override

    config = override(recipes.named(recipe), {"seed": seed, **changes})
    run, history = Run(config, len(dataset.train_labels)), []
    x, y = tensors(dataset.train_images, dataset.train_labels)
    test = list(zip(*(part.split(1000) for part in tensors(dataset.test_images, dataset.test_labels)), strict=True))
    for number in range(config.num_epochs):
        start = time.perf_counter()
        run.train(shuffled(x, y, run))
        accuracy = run.accuracy(test)
        history.append({"epoch": number + 1, "test_accuracy": accuracy, "seconds": time.perf_counter() - start})
    return history


def quality(*, learning_rate: float) -> Task:
    """Trains one epoch at a rate; round k is seed k."""
    dataset = first_images(60_000)
    seeds = iter(range(1_000))

    def sample(n: int) -> dict[str, Any]:
        [row] = train_run("quality", next(seeds), dataset, learning_rate=learning_rate)
        return {"seconds": row["seconds"], "percent": 100 * row["test_accuracy"]}

    return Task(sample, 60_000, parameters(Run(recipes.named("quality"), 60_000).net), repeatable=False)
