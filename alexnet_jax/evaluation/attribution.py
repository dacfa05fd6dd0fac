"""How much each pixel of an image counts for a class, by six methods; docs/explain.md says what each of them means.

All of them explain a logit, before softmax, of the network as it is tested. They read the network's own input, crops
less their mean, in which 0 is the mean image: that is what a pixel is compared with where a method needs an absence.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.model.alexnet import INTERMEDIATES, AlexNet
from alexnet_jax.model.spec import ChannelNorm, SpatialNorm

METHODS = ('occlusion', 'gradient', 'integrated_gradients', 'guided', 'deconvnet', 'grad_cam')
SIGNALS = ('guided', 'deconvnet')  # pictures in the colours of pixels; the others are numbers for places
Compute = Callable[[Array], Array]  # input (b, h, w, 3) -> logits (b, classes), each row of its own image alone


def choose_logits(logits: Array, classes: Array) -> Array:
    """Returns each row's logit of its class: (b, classes), int32 (b,) -> (b,)."""
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]


def compute_gradient(compute: Compute, images: Array, classes: Array) -> Array:
    """Differentiates each image's logit by its pixels (Simonyan et al. 2013, section 3): (b, h, w, 3).

    Of a network with `BackwardRules` that is what guided backpropagation or the deconvnet shows.
    """
    return jax.grad(lambda images: choose_logits(compute(images), classes).sum())(images)


def integrate_gradients(gradient: Compute, images: Array, baseline: Array | float, *, steps: int) -> Array:
    """Integrates gradients from `baseline` to the images, times the way (Sundararajan et al. 2017): (b, h, w, 3).

    The sum over an image is its logit less the baseline's, up to the error of the midpoint rule with `steps` points.

    Args:
      gradient: of the logits by the images, compiled: it is called once a step. A loop inside one program would send
        XLA:CPU's convolutions down a slow path.
      images: (b, h, w, 3), the network's input.
      baseline: what is taken for no image, as images or one number.
      steps: how many gradients.
    """
    way = images - baseline
    total = jnp.zeros_like(images)
    for step in range(steps):
        total += gradient(baseline + (step + 0.5) / steps * way)
    return way * total / steps


def list_places(size: int, *, window: int, stride: int) -> list[int]:
    """Lists where windows begin along a side of `size`: every `stride` pixels, and one that ends with the side."""
    last = size - window
    return [*range(0, last, stride), last]


def measure_occlusion(
    score: Callable[[Array, Array], Array],
    images: np.ndarray,
    classes: np.ndarray,
    *,
    window: int,
    stride: int,
    batch_size: int,
    fill: float = 0.0,
) -> np.ndarray:
    """Measures by how much each logit falls when a square is covered (Zeiler and Fergus 2013, section 4.2).

    Args:
      score: (images, classes) -> logits of the classes, (batch_size,), compiled.
      images: (n, h, h, 3), the network's input.
      classes: int32 (n,).
      window: side of the square, pixels.
      stride: pixels from one square to the next.
      batch_size: how many covered images are computed at once.
      fill: what the square is painted with.

    Returns:
      float32 (n, places, places), places as of `list_places`.
    """
    places = list_places(images.shape[1], window=window, stride=stride)
    covers: list[tuple[int, tuple[int, int] | None]] = [
        (image, None) for image in range(len(images))
    ]  # first the images as they are
    covers += [(image, (top, left)) for image in range(len(images)) for top in places for left in places]
    scores: list[np.ndarray] = []
    for start in range(0, len(covers), batch_size):
        part = covers[start : start + batch_size]
        rows = np.array([image for image, _ in part] + [0] * (batch_size - len(part)))
        covered = images[rows]
        for row, (_, place) in enumerate(part):
            if place is not None:
                top, left = place
                covered[row, top : top + window, left : left + window] = fill
        scores.append(np.asarray(score(jnp.asarray(covered), jnp.asarray(classes[rows])))[: len(part)])
    whole, rest = np.split(np.concatenate(scores), [len(images)])
    return whole[:, None, None] - rest.reshape(len(images), len(places), len(places))


def spread_falls(falls: np.ndarray, *, size: int, window: int, stride: int) -> np.ndarray:
    """Gives each pixel the mean of `measure_occlusion` over the squares that it was under: (n, size, size)."""
    places = list_places(size, window=window, stride=stride)
    covers = np.zeros((len(places), size))  # 1 where the square is
    for index, place in enumerate(places):
        covers[index, place : place + window] = 1
    times = np.maximum(covers.sum(axis=0), 1)  # with a stride above the window some pixels are under none
    along = covers / times
    return np.einsum('nij,ih,jw->nhw', falls, along, along).astype(np.float32)


def compute_grad_cam(
    compute: Callable[[Array, Array], tuple[Array, Array]], images: Array, classes: Array, shape: tuple[int, ...]
) -> Array:
    """Weighs maps of a convolution by their mean gradients (Selvaraju et al. 2017, equations 1 and 2): (b, h', w').

    Args:
      compute: as of `compute_shifted` for the maps' stage.
      images: (b, h, w, 3), the network's input.
      classes: int32 (b,).
      shape: (h', w', channels) of the stage.
    """

    def explained(shift: Array) -> tuple[Array, Array]:
        logits, maps = compute(images, shift)
        return choose_logits(logits, classes).sum(), maps

    gradients, maps = jax.grad(explained, has_aux=True)(jnp.zeros((len(images), *shape), images.dtype))
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    return jnp.maximum((weights * maps).sum(axis=-1), 0)


def compute_shifted(model: AlexNet, params: Any, images: Array, shift: Array, *, stage: str) -> tuple[Array, Array]:
    """Computes logits when `shift` is added to what `stage` has made, and that sum: to differentiate by a stage."""
    tapped = model.clone(tap=lambda x, name: x + shift if name == stage else x)
    logits, made = tapped.apply({'params': params}, images, mutable=[INTERMEDIATES])
    return logits, made[INTERMEDIATES][stage]


def _pass_guided(y: Array, signal: Array) -> Array:
    """Springenberg et al. 2015, figure 1: what is positive, where the unit was active."""
    return jnp.where((y > 0) & (signal > 0), signal, 0)


def _pass_deconvnet(y: Array, signal: Array) -> Array:
    """Zeiler and Fergus 2013, section 2.1, Rectification: what is positive, whatever the unit did."""
    del y
    return jnp.maximum(signal, 0)


_PASSES = {'guided': _pass_guided, 'deconvnet': _pass_deconvnet}


class BackwardRules:
    """The operations of a network (AlexNet.operations) with the same numbers and another way back.

    'guided' and 'deconvnet' have their own rule for ReLU. The deconvnet's three steps, unpooling, rectification and
    filtering, have none for normalisation: its signal passes there as it is. Unpooling and filtering are what
    differentiation makes of max-pooling and convolution: the signal goes to each window's own maximum, its switch, and
    where windows overlap in one, their signals add up.
    """

    def __init__(self, operations: Any, method: str) -> None:
        """Takes over `operations`, `ops` or `ops_cpu`, for `method` of SIGNALS."""
        self._operations = operations
        self._straight = method == 'deconvnet'
        self.relu = _replace_backward(operations.relu, _PASSES[method])

    def __getattr__(self, name: str) -> Any:
        """Finds the operations that have their own derivatives."""
        return getattr(self._operations, name)

    def channel_norm(self, x: Array, norm: ChannelNorm, *, towers: int) -> Array:
        """Normalises across channels."""
        return self._normalise(lambda x: self._operations.channel_norm(x, norm, towers=towers), x)

    def spatial_norm(self, x: Array, norm: SpatialNorm) -> Array:
        """Normalises within maps."""
        return self._normalise(lambda x: self._operations.spatial_norm(x, norm), x)

    def _normalise(self, function: Callable[[Array], Array], x: Array) -> Array:
        return (_replace_backward(function, lambda y, signal: signal) if self._straight else function)(x)


def _replace_backward(
    function: Callable[[Array], Array], backward: Callable[[Array, Array], Array]
) -> Callable[[Array], Array]:
    """Makes y = function(x) whose signal at y becomes backward(y, signal) at x."""

    @jax.custom_vjp
    def replaced(x: Array) -> Array:
        return function(x)

    def forward(x: Array) -> tuple[Array, Array]:
        y = function(x)
        return y, y

    replaced.defvjp(forward, lambda y, signal: (backward(y, signal),))
    return replaced
