"""Explains a network's logits, batch by batch: the methods of attribution.py as compiled programs of the parameters."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from alexnet_jax.data.augment import centre_crop, normalise
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.attribution import (
    SIGNALS,
    BackwardRules,
    choose_logits,
    compute_grad_cam,
    compute_gradient,
    compute_shifted,
    integrate_gradients,
    measure_occlusion,
    spread_falls,
)
from alexnet_jax.evaluation.open_networks import place_network
from alexnet_jax.evaluation.perceptual import list_compared_stages
from alexnet_jax.model.alexnet import AlexNet, get_stage_shapes
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.backend import compiler_options
from alexnet_jax.sharding.collectives import copy_to_replicas, copy_to_towers
from alexnet_jax.sharding.mesh import TOWER, batch_axes, batch_spec, make_mesh, parameter_specs, place, place_batch
from alexnet_jax.training.step import make_model

Params = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the methods need besides the network.

    Attributes:
      window: side of the square that occlusion covers, pixels; None: a seventh of the crop, 32 of 224.
      stride: from one square to the next; None: half a square.
      steps: gradients of integrated_gradients.
    """

    window: int | None = None
    stride: int | None = None
    steps: int = 50

    def choose_square(self, size: int) -> dict[str, int]:
        """Returns window and stride for crops of `size`; `InputError` where the square is larger than the crop."""
        window = self.window or max(1, size // 7)
        if window > size:
            raise InputError(f'--window={window} is larger than the crops of {size}x{size} that the network reads')
        return {'window': window, 'stride': self.stride or max(1, window // 2)}


class Explainer:
    """A network on a mesh, in float32 whatever its training computed in.

    `explain` and `compute_logits` take other parameters than the network's own too, for randomisation.py, and compile
    nothing anew for them. Each waits for its programs: several at once on virtual devices of the CPU, each at one of
    its exchanges, would wait for one another for ever.

    Attributes:
      parts: over how many devices a batch is split, which its size must divide by.
    """

    def __init__(self, network: Network, settings: Settings, mesh: Mesh | None = None) -> None:
        """Checks that `network` can be explained on `mesh`, None: on one device.

        Raises:
          InputError: layers of it have no weights, or it has no towers that could live apart.
        """
        network.check_trained()
        self._mesh = mesh or make_mesh(1, 1)
        self.parts = math.prod(self._mesh.shape[axis] for axis in batch_axes(self._mesh))
        self.params, _ = place_network(network, self._mesh, batch_size=self.parts)
        self._variant, self._settings = network.variant, settings
        self._model = make_model(self._mesh, self._variant, num_classes=len(network.classes))
        self._mean = np.asarray(centre_crop(network.mean_image, self._variant.input_size))
        self._shapes = get_stage_shapes(self._variant, num_classes=len(network.classes))
        self._stage = list_compared_stages(self._variant)[-1]
        self._logits = self._compile(functools.partial(self._apply, self._model))
        self._score = self._compile(
            lambda params, images, classes: choose_logits(self._apply(self._model, params, images), classes)
        )
        self._grad_cam = self._compile(self._trace_grad_cam)
        self._gradients = {method: self._make_gradient(method) for method in ('gradient', *SIGNALS)}

    def prepare(self, crops: np.ndarray) -> jax.Array:
        """Makes the network's input of crops, uint8 (b, size, size, 3), on the mesh."""
        pixels = normalise(jnp.asarray(crops), jnp.asarray(self._mean), std=self._variant.pixel_std)
        return place_batch(self._mesh, pixels)

    def place(self, params: Params) -> Any:
        """Puts other parameters where the network's own are."""
        return place(self._mesh, params, parameter_specs(self._mesh, params))

    def compute_logits(self, params: Params, images: jax.Array) -> np.ndarray:
        """Computes logits of the network's input: (b, classes)."""
        return np.asarray(self._logits(params, images))

    def explain(self, params: Params, images: jax.Array, classes: np.ndarray, *, method: str) -> np.ndarray:
        """Explains the logits of `classes`, int32 (b,), by one of attribution.METHODS.

        Returns:
          float32: (b, size, size, 3) of methods that go through the network backwards, (b, size, size) of occlusion,
          and of grad_cam as large as the last convolution's maps, (b, 13, 13) of 224x224.
        """
        size = self._variant.input_size
        if method == 'occlusion':
            square = self._settings.choose_square(size)
            score = functools.partial(self._score, params)
            batch = self.parts * max(1, 32 // self.parts)
            falls = measure_occlusion(score, np.asarray(images), classes, batch_size=batch, **square)
            return spread_falls(falls, size=size, **square)
        if method == 'grad_cam':
            return np.asarray(self._grad_cam(params, images, classes))
        if method == 'integrated_gradients':
            gradient = functools.partial(self._gradients['gradient'], params, classes=classes)
            return np.asarray(integrate_gradients(gradient, images, 0.0, steps=self._settings.steps))
        return np.asarray(self._gradients[method](params, images, classes=classes))

    def can_explain(self, method: str) -> bool:
        """Tells whether the network has what `method` is about."""
        return method not in SIGNALS or any(stage.endswith('/relu') for stage in self._shapes)

    def check_method(self, method: str) -> None:
        """Raises `InputError` where the network has nothing that `method` is about, or the settings do not fit."""
        if not self.can_explain(method):
            raise InputError(f'--method={method} is a rule for ReLU, and the network {self._variant.name} has none')
        if method == 'occlusion':
            self._settings.choose_square(self._variant.input_size)

    def _make_gradient(self, method: str) -> Any:
        operations = self._model.operations
        rules: Any = operations if method == 'gradient' else BackwardRules(operations, method)
        model = self._model.clone(operations=rules)

        def gradient(params: Params, images: jax.Array, classes: jax.Array) -> jax.Array:
            return compute_gradient(functools.partial(self._apply, model, params), images, classes)

        return self._compile(gradient)

    def _trace_grad_cam(self, params: Params, images: jax.Array, classes: jax.Array) -> jax.Array:
        rows = batch_spec(self._mesh)
        maps = P(*rows, None, None, TOWER)  # each device of a pair has the channels of its tower

        def device_compute(params: Params, images: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
            return compute_shifted(self._model, *self._copy(params, images), shift, stage=self._stage)

        specs = (parameter_specs(self._mesh, params), rows, maps)
        compute = jax.shard_map(device_compute, mesh=self._mesh, in_specs=specs, out_specs=(rows, maps))
        return compute_grad_cam(functools.partial(compute, params), images, classes, self._shapes[self._stage])

    def _apply(self, model: AlexNet, params: Params, images: jax.Array) -> Any:
        """Computes logits. Their gradient by the images is the sum of both towers'."""

        def device_apply(params: Params, images: jax.Array) -> Any:
            own, images = self._copy(params, images)
            return model.apply({'params': own}, images)

        rows = batch_spec(self._mesh)
        specs = (parameter_specs(self._mesh, params), rows)
        return jax.shard_map(device_apply, mesh=self._mesh, in_specs=specs, out_specs=rows)(params, images)

    def _copy(self, params: Params, images: jax.Array) -> tuple[Any, jax.Array]:
        """Marks what devices share as the own of each, for layers that write their own gradients; moves nothing."""
        return copy_to_replicas(params, self._mesh), copy_to_towers(images, self._mesh)

    def _compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        program = jax.jit(function, compiler_options=compiler_options(self._mesh))
        return lambda *args, **options: jax.block_until_ready(program(*args, **options))


def make_maps(attributions: np.ndarray, *, method: str, size: int) -> np.ndarray:
    """Makes one number for each pixel, float32 (b, size, size), of what `Explainer.explain` returns.

    Of three colours the sum, where they are parts of a logit, and else the largest magnitude (Simonyan et al. 2013,
    section 3.1); of coarser maps values between theirs, linearly.
    """
    if attributions.ndim == 4:
        return attributions.sum(-1) if method == 'integrated_gradients' else np.abs(attributions).max(-1)
    shape = (len(attributions), size, size)
    return attributions if attributions.shape == shape else np.asarray(jax.image.resize(attributions, shape, 'linear'))


def find_half(magnitudes: np.ndarray) -> float | None:
    """Finds the share of pixels that hold half of a map's magnitude, the fewest; None where it is 0 everywhere."""
    ordered = np.cumsum(np.sort(np.abs(magnitudes).ravel().astype(np.float64))[::-1])
    if not ordered[-1] > 0:
        return None
    return float((np.searchsorted(ordered, ordered[-1] / 2) + 1) / ordered.size)


def list_peaks(maps: np.ndarray) -> list[list[int]]:
    """Lists [row, column] of the largest value of each map of (n, h, w), the first of equal ones."""
    return [[int(place) for place in np.unravel_index(np.argmax(one), one.shape)] for one in maps]
