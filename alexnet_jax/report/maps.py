"""Computes and renders the feature maps of each convolution for one image, by tower."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import ImageColor

from alexnet_jax.data.augment import centre_crop, normalise
from alexnet_jax.model import ops
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.network import Network
from alexnet_jax.report.palette import MUTED, TOWER_COLOURS


@dataclasses.dataclass(frozen=True)
class LayerMaps:
    """The output of a convolution and of all that follows it, up to the next.

    Attributes:
      name: of the layer.
      maps: float32 (h, w, channels).
      towers: 2 where its channels are tower 0's, then tower 1's; 1 where there are no towers.
    """

    name: str
    maps: np.ndarray
    towers: int

    def get_strongest(self, tower: int, *, count: int) -> np.ndarray:
        """Returns (count, h, w): the maps of a tower whose means are largest, strongest first."""
        maps = np.moveaxis(np.split(self.maps, self.towers, axis=-1)[tower], -1, 0)
        return maps[np.argsort(-maps.mean(axis=(1, 2)), kind='stable')[:count]]


class _RecordingOps:
    """The network's operations (model.ops), which record the last (b, h, w, c) before each next convolution."""

    def __init__(self) -> None:
        self.blocks: list[Array] = []

    def __getattr__(self, name: str) -> Any:
        operation = getattr(ops, name)

        def record(x: Array, *arguments: Any, **options: Any) -> Array:
            y = operation(x, *arguments, **options)
            if name in ('convolution', 'local_convolution'):
                self.blocks.append(y)
            elif y.ndim == 4:
                self.blocks[-1] = y
            return y

        return record


def compute_maps(network: Network, image: np.ndarray) -> list[LayerMaps]:
    """Computes the maps of a record, uint8 (h, w, 3), seen through its centre crop."""
    variant = network.variant

    def forward(params: Any, crop: Array, mean: Array) -> list[Array]:
        operations = _RecordingOps()
        model = AlexNet(variant, len(network.classes), operations=operations)
        model.apply({'params': params}, normalise(crop, mean, std=variant.pixel_std))
        return operations.blocks

    crop = jnp.asarray(centre_crop(image, variant.input_size))[None]
    blocks = jax.device_get(jax.jit(forward)(network.params, crop, network.mean_image))
    return [LayerMaps(conv.name, maps[0], variant.towers) for conv, maps in zip(variant.convs, blocks, strict=True)]


def render_maps(maps: np.ndarray, *, tower: int | None) -> np.ndarray:
    """Renders (n, h, w) as uint8 (n, h, w, 3): black is 0 and less, then the tower's colour, white each map's largest.

    `tower` None, of a network without towers, is grey.
    """
    largest = maps.max(axis=(1, 2), keepdims=True)
    levels = np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0).clip(0, 1)
    middle = ImageColor.getrgb(MUTED if tower is None else TOWER_COLOURS[tower])
    channels = [np.interp(levels, [0, 0.5, 1], [0, value, 255]) for value in middle]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
