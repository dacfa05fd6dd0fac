"""The Flax module: one device's share of AlexNet, whether that is one tower or both.

The only file that imports flax.
"""

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from alexnet_jax.model import ops
from alexnet_jax.model.spec import (
    TOWERS,
    Activation,
    AveragePool,
    ChannelNorm,
    Conv,
    Dense,
    MaxPool,
    Operation,
    Relu,
    Sigmoid,
    SpatialNorm,
    Tanh,
    Variant,
)

INTERMEDIATES = 'intermediates'  # the collection of what the stages have made; Flax leaves it out of `init`
FACTORS = 'factors'  # that of `ops.matmul_deferred`'s factors, {layer: (x, gradient)}, of layers that are to have them
_STAGES: dict[type[Operation], str] = {
    Relu: 'relu',
    Tanh: 'tanh',
    Sigmoid: 'sigmoid',
    MaxPool: 'pool',
    AveragePool: 'pool',
    ChannelNorm: 'norm',
    SpatialNorm: 'spatial_norm',
}


class AlexNet(nn.Module):
    """AlexNet on a device that holds `local_towers` of the two towers.

    Its parameters are one tree of ordinary arrays, the same for every mesh: kernels (kh, kw, i, o) or (i, o) whose
    output axis is tower 0's channels, then tower 1's. A device with one tower holds its half of that axis, and of
    fc8 everything.

    Attributes:
      variant: the network, already scaled to its width.
      num_classes: outputs of fc8.
      local_towers: 2, or 1 where each tower's convolutions have a device of their own.
      dense_devices: how many devices share the hidden units of the fully connected layers, evenly.
      exchange: called as exchange(x, layer) before every layer that reads both towers; returns the channels of both.
      combine: called with fc8's products of the units that are here; returns those of all units.
      tap: called as tap(x, stage) with what each stage has made; returns what is read in its place.
      operations: `ops`, or `ops_cpu` or `ops_gpu` with the same numbers in the forms that suit that hardware.
      dtype: of activations and products, such as bfloat16, with logits in float32; None: that of images and parameters.
        Parameters and their gradients keep their own dtype, and normalisation is computed in float32 at least.
    """

    variant: Variant
    num_classes: int
    local_towers: int = TOWERS
    dense_devices: int = 1
    exchange: Callable[[Array, str], Array] = lambda x, layer: x  # one device that holds both towers has all channels
    combine: Callable[[Array], Array] = lambda products: products
    tap: Callable[[Array, str], Array] = lambda x, stage: x
    operations: ModuleType = ops
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, images: Array, dropout: ops.DropoutStream | None = None) -> Array:
        """Returns logits (b, num_classes) of normalised images (b, input_size, input_size, 3), about -128..128.

        With `dropout` the network trains; without it, it is tested. `apply` with mutable=[INTERMEDIATES] also returns
        what every stage has made, {INTERMEDIATES: {stage: array}}, of the towers here; `list_stages` names them.
        """
        x = self._in_dtype(images)
        for conv in self.variant.convs:
            x = self._sow(conv, 'linear', self._convolve(conv, self._exchanged(conv, x)))
            for operation in conv.then:
                x = self._sow(conv, _STAGES[type(operation)], self._operate(operation, x))
        *hidden, classifier = self.variant.dense
        for index, layer in enumerate(hidden):
            x = self._flat(layer, self._exchanged(layer, x))
            if self.variant.drops == 'inputs':
                x = self._drop(x, dropout and dropout.of_both_towers(), index)
            x = self._sow(layer, 'linear', self._connect(layer, x))
            activation = self.variant.activation
            x = self._sow(layer, _STAGES[type(activation)], self._operate(activation, x))
            if self.variant.drops == 'outputs':
                x = self._sow(layer, 'dropout', self._drop(x, dropout, index))
        x = self._flat(classifier, self._exchanged(classifier, x))
        return self._sow(classifier, 'linear', self._classify(classifier, x))

    def _sow(self, layer: Conv | Dense, stage: str, x: Array) -> Array:
        """Returns x, and gives it to whoever asks for it; to those who do not, the program is the same as without."""
        name = f'{layer.name}/{stage}'
        x = self.tap(x, name)
        self.sow(INTERMEDIATES, name, x, init_fn=lambda: None, reduce_fn=lambda _, new: new)
        return x

    def _drop(self, x: Array, stream: ops.DropoutStream | None, layer: int) -> Array:
        rate, inverted = self.variant.dropout_rate, self.variant.inverted_dropout
        return ops.dropout(x, stream, layer=layer, rate=rate, inverted=inverted)

    def _in_dtype(self, x: Array) -> Array:
        return x if self.dtype is None else x.astype(self.dtype)

    def _groups(self, layer: Conv | Dense) -> int:
        """Counts the towers, each read by its own features alone, into which what `layer` reads here falls apart."""
        return min(self.local_towers, self.variant.towers) if layer.reads == 'tower' else 1

    def _exchanged(self, layer: Conv | Dense, x: Array) -> Array:
        return self.exchange(x, layer.name) if layer.reads == 'both' else x

    def _flat(self, layer: Dense, x: Array) -> Array:
        """Reshapes (b, h, w, c) to (b, h * w * c): row, column, channel; by tower where `layer` reads its own.

        Behind the exchange and channels last, so that fc6 reads (row, column, channel of both towers).
        """
        if x.ndim == 2:
            return x
        towers = x.reshape(*x.shape[:3], self._groups(layer), -1)
        return jnp.moveaxis(towers, 3, 1).reshape(x.shape[0], -1)

    def _parameters(
        self, layer: Conv | Dense, shape: tuple[int, ...], *, places: tuple[int, ...] = ()
    ) -> tuple[Array, Array]:
        """Returns the kernel of `shape` and a bias for each of its outputs, or one at each of `places`.

        The bias keeps its dtype, and so do the sums behind its gradient: `add_bias` rounds it.
        """
        kernel, bias = _Parameters(shape, places, layer.init_std, layer.init_bias, name=layer.name)()
        return self._in_dtype(kernel), bias

    def _convolve(self, conv: Conv, x: Array) -> Array:
        groups, side = self._groups(conv), conv.kernel
        if conv.shared:
            shape = (side, side, x.shape[-1] // groups, conv.features * self.local_towers // TOWERS)
            kernel, bias = self._parameters(conv, shape)
            convolve = functools.partial(self.operations.convolution, stride=conv.stride, groups=groups)
        else:
            sizes = zip(x.shape[1:3], conv.padding, strict=True)
            places = tuple(size + sum(edge) - side + 1 for size, edge in sizes)
            kernel, bias = self._parameters(conv, (*places, side**2 * x.shape[-1], conv.features), places=places)
            convolve = functools.partial(self.operations.local_convolution, side=side)
        with jax.named_scope(conv.name):
            return self.operations.add_bias(convolve(x, kernel, padding=conv.padding), bias)

    def _connect(self, layer: Dense, x: Array) -> Array:
        groups = self._groups(layer)
        kernel, bias = self._parameters(layer, (x.shape[-1] // groups, layer.features // self.dense_devices))
        with jax.named_scope(layer.name):
            if groups > 1:
                towers = zip(jnp.split(x, groups, axis=1), jnp.split(kernel, groups, axis=1), strict=True)
                return self.operations.add_bias(jnp.concatenate([a @ b for a, b in towers], axis=1), bias)
            return self.operations.add_bias(self._multiply(layer, x, kernel, jnp.matmul), bias)

    def _classify(self, layer: Dense, x: Array) -> Array:
        """Computes the logits from sums that are never rounded to `dtype`: of 1,000 classes some would be equal."""
        kernel, bias = self._parameters(layer, (x.shape[-1], self.num_classes))
        with jax.named_scope(layer.name):
            logits = self.combine(self._multiply(layer, x, kernel, ops.matmul_wide))
            return self.operations.add_bias(logits, bias)

    def _multiply(self, layer: Dense, x: Array, kernel: Array, matmul: Callable[[Array, Array], Array]) -> Array:
        factors = self.get_variable(FACTORS, layer.name)
        return matmul(x, kernel) if factors is None else ops.matmul_deferred(x, kernel, factors)

    def _operate(self, operation: Operation, x: Array) -> Array:
        match operation:
            case Relu():
                return self.operations.relu(x)
            case Tanh():
                return self.operations.tanh(x)
            case Sigmoid():
                return self.operations.sigmoid(x)
            case MaxPool():
                return self.operations.max_pool(x, operation)
            case AveragePool():
                return self.operations.average_pool(x, operation)
            case ChannelNorm():
                towers = 1 if operation.across_towers else min(self.local_towers, self.variant.towers)
                return self.operations.channel_norm(x, operation, towers=towers)
            case SpatialNorm():
                return self.operations.spatial_norm(x, operation)


class _Parameters(nn.Module):
    """A layer's kernel ~ N(0, std^2) and constant bias, or either uniform (spec.Conv), under the layer's name."""

    shape: tuple[int, ...]
    places: tuple[int, ...]
    std: float | None
    bias: float | None

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        uniform = _uniform(math.prod(self.shape[len(self.places) : -1]) ** -0.5)
        fill_kernel = uniform if self.std is None else nn.initializers.normal(self.std)
        fill_bias = uniform if self.bias is None else nn.initializers.constant(self.bias)
        bias_shape = (*self.places, self.shape[-1])
        return self.param('kernel', fill_kernel, self.shape), self.param('bias', fill_bias, bias_shape)


def _uniform(bound: float) -> Callable[..., Array]:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def list_stages(variant: Variant) -> tuple[str, ...]:
    """Lists what a network makes of its images, in order: 'conv1/linear', 'conv1/relu', ... 'fc8/linear'.

    The last stage of a layer is what the next layer reads, and fc8's are the logits. 'dropout' is what it leaves of a
    hidden layer: in testing all, times 1 - dropout_rate where the variant's is not inverted.
    """
    *hidden, classifier = variant.dense
    after = [_STAGES[type(variant.activation)], *(['dropout'] if variant.drops == 'outputs' else [])]
    stages = {conv.name: [_STAGES[type(operation)] for operation in conv.then] for conv in variant.convs}
    stages |= {layer.name: after for layer in hidden} | {classifier.name: []}
    return tuple(f'{layer}/{stage}' for layer, others in stages.items() for stage in ('linear', *others))


def find_units(variant: Variant) -> dict[str, tuple[str, Activation]]:
    """Finds {layer: (stage, activation)} of every layer that has units: 'conv1/relu', ..., 'fc7/relu'."""
    found = {conv.name: unit for conv in variant.convs for unit in conv.then if isinstance(unit, Activation)}
    found |= {layer.name: variant.activation for layer in variant.dense[:-1]}
    return {layer: (f'{layer}/{_STAGES[type(unit)]}', unit) for layer, unit in found.items()}


def get_stage_shapes(variant: Variant, *, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Returns {stage: (height, width, channels) or (units,)} of one image in both towers, in order."""
    images = jax.ShapeDtypeStruct((1, variant.input_size, variant.input_size, 3), jnp.float32)
    params = {'params': get_parameter_shapes(variant, num_classes=num_classes)}
    apply = functools.partial(AlexNet(variant, num_classes).apply, mutable=[INTERMEDIATES])
    made = jax.eval_shape(apply, params, images)[1][INTERMEDIATES]
    return {stage: made[stage].shape[1:] for stage in list_stages(variant)}


def init_parameters(variant: Variant, key: Array, *, num_classes: int) -> dict[str, Any]:
    """Makes a fresh parameter tree {layer: {'kernel', 'bias'}} of both towers, float32."""
    model = AlexNet(variant, num_classes)
    return model.init(key, jnp.zeros((1, variant.input_size, variant.input_size, 3)))['params']


def get_parameter_shapes(variant: Variant, *, num_classes: int) -> dict[str, Any]:
    """Returns the tree of `init_parameters` as jax.ShapeDtypeStruct, without computing it."""
    return jax.eval_shape(lambda: init_parameters(variant, jax.random.key(0), num_classes=num_classes))
