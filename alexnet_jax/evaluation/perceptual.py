"""Compares images by what the convolutions make of them, as LPIPS does (Zhang et al. 2018, arXiv:1801.03924)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.model.alexnet import list_stages
from alexnet_jax.model.spec import Variant

EPSILON = 1e-10  # added to the norm, not to its square: normalize_tensor of lpips 0.1.4


def list_compared_stages(variant: Variant) -> tuple[str, ...]:
    """Lists what is compared: behind the nonlinearity of each convolution, 'conv1/relu', 'conv2/relu', ..."""
    compared = {f'{conv.name}/{activation}' for conv in variant.convs for activation in ('relu', 'tanh', 'sigmoid')}
    return tuple(stage for stage in list_stages(variant) if stage in compared)


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
