"""Compares images by what the convolutions make of them, as LPIPS does (Zhang et al. 2018, arXiv:1801.03924)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.data.augment import centre_crop, normalise
from alexnet_jax.errors import InputError
from alexnet_jax.model.alexnet import INTERMEDIATES, AlexNet, list_stages
from alexnet_jax.model.spec import Variant

EPSILON = 1e-10  # added to the norm, not to its square: normalize_tensor of lpips 0.1.4


def list_compared_stages(variant: Variant) -> tuple[str, ...]:
    """Lists what is compared: behind the nonlinearity of each convolution, 'conv1/relu', 'conv2/relu', ..."""
    compared = {f'{conv.name}/{activation}' for conv in variant.convs for activation in ('relu', 'tanh', 'sigmoid')}
    return tuple(stage for stage in list_stages(variant) if stage in compared)


def compute_compared_stages(model: AlexNet, params: Any, images: Array, mean_image: Array) -> list[Array]:
    """Computes what is compared of whole images of any size, float32 (b, height', width', channels) each; traceable.

    Args:
      model: both towers.
      params: of its convolutions at least.
      images: (b, height, width, 3), numeric, 0..255.
      mean_image: of crops or of records, 0..255; from images of its size, or of a crop's, what it has there is
        subtracted, and from others its mean colour.

    Raises:
      InputError: they are so small that nothing is left of them, or the network has locally connected layers, which fit
        one size alone.
    """
    variant, (height, width) = model.variant, images.shape[1:3]
    crop = variant.input_size
    if (height, width) != (crop, crop) and not all(conv.shared for conv in variant.convs):
        raise InputError(f'images are {height}x{width}: {variant.name} has layers that fit {crop}x{crop} alone')
    mean = mean_image.mean(axis=(0, 1))
    if (height, width) in (mean_image.shape[:2], (crop, crop)):
        mean = jnp.asarray(centre_crop(mean_image, height))
    pixels = normalise(images, mean, std=variant.pixel_std)

    stages = list_stages(variant)
    last = stages.index(list_compared_stages(variant)[-1])

    def check_size(x: Array, stage: str) -> Array:
        if x.size:
            return x
        if stages.index(stage) <= last:
            raise InputError(f'images are {height}x{width}, so small that nothing is left of them at {stage}')
        return jnp.zeros((len(x), 1, 1, x.shape[-1]), x.dtype)  # for the dense layers, which nobody asks for

    model = model.clone(tap=check_size)
    # The dense layers fit one size alone, and nobody asks for them: zeros of the shape that would fit stand in their
    # place, and under jit nothing is computed with them.
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x)['params'], pixels)
    zeros = {layer.name: jax.tree.map(lambda x: jnp.zeros(x.shape), shapes[layer.name]) for layer in variant.dense}
    found = model.apply({'params': {**params, **zeros}}, pixels, mutable=[INTERMEDIATES])[1][INTERMEDIATES]
    return [found[stage].astype(jnp.float32) for stage in list_compared_stages(variant)]


def check_pairs(ours: Array, others: Array) -> None:
    """Raises `InputError` unless there are as many of both, or one of either, (n, height, width, 3) of one size."""
    sizes = ['x'.join(map(str, images.shape[1:3])) for images in (ours, others)]
    if sizes[0] != sizes[1]:
        raise InputError(f'images of {sizes[0]} are compared with some of {sizes[1]}: give all one size')
    if len(ours) != len(others) and 1 not in (len(ours), len(others)):
        raise InputError(f'{len(ours)} images are compared with {len(others)}: give as many, or one')


@jax.jit
def compare_stages(ours: Sequence[Array], others: Sequence[Array], linear: Sequence[np.ndarray] | None) -> Array:
    """Computes the distance of images from their stages: sums over stages, means over places; (n,).

    Args:
      ours, others: of each stage (n, height, width, channels), or (1, ...) against all of the other's.
      linear: of each stage (channels,), what a squared difference there counts; None: 1 in all channels.
    """
    total = jnp.zeros(())
    for index, (one, other) in enumerate(zip(ours, others, strict=True)):
        apart = (_normalise_channels(one) - _normalise_channels(other)) ** 2
        if linear is not None:
            apart *= linear[index]
        total += apart.sum(axis=-1).mean(axis=(1, 2))
    return total


def _normalise_channels(x: Array) -> Array:
    """Divides by the norm over channels; where all are 0 they stay so, and have a gradient of 0 rather than NaN."""
    square = (x * x).sum(axis=-1, keepdims=True)
    alive = square > 0
    return jnp.where(alive, x / (jnp.sqrt(jnp.where(alive, square, 1)) + EPSILON), 0)
