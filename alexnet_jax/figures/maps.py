"""What each convolution makes of one image: its maps, by tower."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.data.augment import centre_crop, normalise
from alexnet_jax.figures.palette import MUTED, TOWER_COLOURS, rgb
from alexnet_jax.model import layers
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.network import Network


@dataclasses.dataclass(frozen=True)
class LayerMaps:
    """What a convolution gives with all that follows it, up to the next.

    Attributes:
      name: of the layer.
      maps: float32 (h, w, channels).
      towers: 2 where its channels are tower 0's, then tower 1's; 1 where there are no towers.
    """

    name: str
    maps: np.ndarray
    towers: int

    def strongest(self, tower: int, *, count: int) -> np.ndarray:
        """(count, h, w): the maps of a tower whose means are largest, strongest first."""
        own = np.moveaxis(np.split(self.maps, self.towers, axis=-1)[tower], -1, 0)
        return own[np.argsort(-own.mean(axis=(1, 2)), kind='stable')[:count]]


class _Listening:
    """The network's operations, which note the last (b, h, w, c) before each next convolution."""

    def __init__(self) -> None:
        self.blocks: list[Array] = []

    def __getattr__(self, name: str) -> Any:
        operation = getattr(layers, name)

        def noted(x: Array, *arguments: Any, **options: Any) -> Array:
            y = operation(x, *arguments, **options)
            if name in ('convolution', 'local_convolution'):
                self.blocks.append(y)
            elif y.ndim == 4:
                self.blocks[-1] = y
            return y

        return noted


def maps_of(network: Network, image: np.ndarray) -> list[LayerMaps]:
    """The maps of a record, uint8 (h, w, 3), seen through its centre crop."""
    variant = network.variant

    def forward(params: Any, crop: Array, mean: Array) -> list[Array]:
        listening = _Listening()
        model = AlexNet(variant, len(network.classes), operations=listening)
        model.apply({'params': params}, normalise(crop, mean, std=variant.pixel_std))
        return listening.blocks

    crop = jnp.asarray(centre_crop(image, variant.input_size))[None]
    found = jax.device_get(jax.jit(forward)(network.params, crop, network.mean_image))
    return [LayerMaps(conv.name, maps[0], variant.towers) for conv, maps in zip(variant.convs, found, strict=True)]


def map_pictures(maps: np.ndarray, *, tower: int | None) -> np.ndarray:
    """(n, h, w) -> uint8 (n, h, w, 3): black is 0 and less, then the tower's colour, white each map's largest.

    `tower` None, of a network without towers, is grey.
    """
    largest = maps.max(axis=(1, 2), keepdims=True)
    levels = np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0).clip(0, 1)
    middle = np.array(rgb(MUTED if tower is None else TOWER_COLOURS[tower]), np.float64)
    steps = np.stack([[0, 0, 0], middle, [255, 255, 255]])
    channels = [np.interp(levels, [0, 0.5, 1], steps[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
