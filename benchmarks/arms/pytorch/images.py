"""Augmented images for PyTorch: a batch at once on the device, or one by one in a DataLoader."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import affine_grid, grid_sample

from benchmarks.arms import work
from jax_s6.config import AugmentConfig
from jax_s6.training.augmentation import elastic_waves


def warp(x: torch.Tensor, strengths: AugmentConfig) -> torch.Tensor:
    """Transform a batch as ``jax_s6.training.augmentation`` does, affinely and elastically, with a black border."""
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


class Items(torch.utils.data.Dataset):
    """Training images as tutorials read them: PIL images, each transformed as torchvision's transforms would."""

    def __init__(self, dataset: Any, strengths: AugmentConfig):
        pairs = zip(dataset.train_images, dataset.train_labels, strict=True)
        self._items = [(Image.fromarray(image[..., 0]), int(label)) for image, label in pairs]
        self._strengths = strengths

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        image, label = self._items[index]
        if self._strengths.enabled:
            image = image.transform(image.size, Image.Transform.AFFINE, self._matrix(), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(image)).float().div_(255)
        return x.sub_(work.MEAN).div_(work.STD)[None], label

    def _matrix(self) -> tuple[float, ...]:
        """Draw an inverse affine map about the image's centre, as torchvision's RandomAffine does."""
        angle, x, y, scale = (torch.rand(4) * 2 - 1).tolist()
        angle, zoom = math.radians(self._strengths.rotation) * angle, 1 + self._strengths.scale * scale
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        x, y = 14 + self._strengths.shift * x, 14 + self._strengths.shift * y
        return cos, sin, 14 - cos * x - sin * y, -sin, cos, 14 + sin * x - cos * y
