"""Makes images that excite single channels: activation maximisation, from noise, by gradient ascent on the pixels.

Erhan et al. 2009 do it; that the image is shifted at random, blurred and drawn towards the mean all the way, against
noise that means nothing to anybody, is Yosinski et al. 2015, section 3, and Mordvintsev et al. 2015 (the shifts).
"""

import functools
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from alexnet_jax.data.augment import centre_crop, normalise
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import find_stage
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.evaluation.strongest import choose_channels, tile_groups
from alexnet_jax.files import check_writable, write_file
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model import ops, ops_cpu
from alexnet_jax.model.alexnet import INTERMEDIATES, AlexNet, get_stage_shapes
from alexnet_jax.model.network import Network
from alexnet_jax.model.receptive_field import get_receptive_fields
from alexnet_jax.sharding.backend import prepare_backend

STEPS = 256
_NOISE, _RATE = 16.0, 4.0  # standard deviation of the first image, and of a step: 0..255 units
_DECAY, _BLUR = 0.01, 0.1  # of each step: towards the mean image, and of a blurred image beside the image
_SHIFT = 4  # pixels in either direction at most
_BATCH = 16
_COLUMNS, _GAP, _SIDE = 8, 4, 96  # pictures in a row, pixels between them and of one


def maximise_channels(
    network: Network,
    *,
    stage: str,
    channels: Sequence[int],
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Makes an image for each of `channels`, which excites the unit in the middle of its map.

    On JAX's default device, both towers together, in float32.

    Returns:
      uint8 (n, size, size, 3), RGB, and what the unit is: float32 (n, 2), of the noise that it began from and of the
      image before it was rounded.

    Raises:
      InputError: layers up to `stage` have no weights.
    """
    network.check_trained(stage.split('/')[0])
    ascend, measure = _make_programs(network, stage)
    mean = np.asarray(centre_crop(network.mean_image, network.variant.input_size), np.float32)
    images, values = [], []
    for start in range(0, len(channels), _BATCH):
        own = np.array(channels[start : start + _BATCH])
        # Of its own stream for each channel, whichever others are asked for.
        noise = [np.random.default_rng([seed, channel]).normal(0, _NOISE, mean.shape) for channel in own]
        x = jnp.asarray(np.clip(mean + np.stack(noise), 0, 255), jnp.float32)
        before = measure(network.params, x, own)
        shifts = np.random.default_rng(seed).integers(-_SHIFT, _SHIFT + 1, (steps, 2))
        for step, shift in enumerate(shifts, start=1):
            x = ascend(network.params, x, own, shift, mean)
            if progress:
                progress(start * steps + step * len(own))
        values.append(np.stack([before, measure(network.params, x, own)], axis=1))
        images.append(np.rint(np.asarray(x)).astype(np.uint8))
    return np.concatenate(images), np.concatenate(values)


def _make_programs(network: Network, stage: str) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Makes ascend(params, images, channels, shift, mean) -> images, and measure(params, images, channels) -> (n,)."""
    variant = network.variant
    operations = ops_cpu if jax.default_backend() == 'cpu' else ops
    model = AlexNet(variant, len(network.classes), operations=operations)
    own_mean = jnp.asarray(centre_crop(network.mean_image, variant.input_size))

    def measure(params: Any, images: Array, channels: Array) -> Array:
        pixels = normalise(images, own_mean, std=variant.pixel_std)
        made = model.apply({'params': params}, pixels, mutable=[INTERMEDIATES])[1][INTERMEDIATES][stage]
        middle = tuple(side // 2 for side in made.shape[1:-1])
        return made[(slice(None), *middle)][jnp.arange(len(images)), channels]

    def ascend(params: Any, images: Array, channels: Array, shift: Array, mean: Array) -> Array:
        shifted = jnp.roll(images, shift, axis=(1, 2))
        gradient = jax.grad(lambda x: measure(params, x, channels).sum())(shifted)
        gradient = jnp.roll(gradient, -shift, axis=(1, 2))
        size = jnp.sqrt((gradient**2).mean(axis=(1, 2, 3), keepdims=True))
        images = images + _RATE * gradient / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
        images = (1 - _BLUR) * images + _BLUR * _blur(images)
        return jnp.clip(images + _DECAY * (mean - images), 0, 255)

    return jax.jit(ascend), jax.jit(measure)


def _blur(images: Array) -> Array:
    """Averages each pixel with its neighbours, weighed 1, 2, 1 in both directions; edges are repeated."""
    for axis in (1, 2):
        padded = jnp.pad(images, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode='edge')
        before, here, behind = (jax.lax.slice_in_dim(padded, at, at + images.shape[axis], axis=axis) for at in range(3))
        images = 0.25 * before + 0.5 * here + 0.25 * behind
    return images


def cut_middle(network: Network, images: np.ndarray, *, stage: str) -> np.ndarray:
    """Cuts out of images (n, size, size, 3) what the unit in the middle of a stage's map reads."""
    fields = get_receptive_fields(network.variant).get(stage)
    if fields is None:
        return images
    (top, bottom), (left, right) = (field[len(field) // 2] for field in fields)
    return images[:, top:bottom, left:right]


def draw_maximised(source: NetworkArgs, *, layer: str, count: int, figure: str | None) -> str:
    """Draws images for the first `count` channels of a layer, half of each tower; returns what was done.

    Of `layer`, if it is no stage, that before its ReLU.

    Raises:
      InputError: what the user gave cannot be used.
    """
    if figure is None:
        raise InputError('--maximise draws a picture: give --figure=FILE.png')
    path = pathlib.Path(figure)
    check_writable(path, option='--figure')
    prepare_backend((1, 1))
    network = source.open_one()
    # Of a layer what comes before its ReLU, behind which a unit that noise does not excite has no gradient.
    stage = find_stage(network.variant, layer if '/' in layer else f'{layer}/linear')
    total = get_stage_shapes(network.variant, num_classes=len(network.classes))[stage][-1]
    towers = 1 if layer.startswith('fc8') else network.variant.towers
    groups = [group[: -(-count // towers)] for group in choose_channels(total, towers=towers)]
    channels = [channel for group in groups for channel in group]
    with show_progress() as report:
        told = functools.partial(report, f'ascending, {stage}')
        images, values = maximise_channels(
            network, stage=stage, channels=channels, progress=lambda done: told(done, len(channels) * STEPS)
        )
    patches = dict(zip(channels, cut_middle(network, images, stage=stage), strict=True))
    tiles = [[Image.fromarray(patches[channel]).resize((_SIDE, _SIDE)) for channel in group] for group in groups]
    picture = tile_groups(tiles, columns=_COLUMNS, gap=_GAP)
    content = io.BytesIO()
    picture.save(content, format='png')
    write_file(path, content.getvalue())
    before, after = np.median(values, axis=0)
    return f'{path}: {len(channels)} of {total:,} channels of {stage}; medians: noise {before:.3g}, image {after:.3g}'
