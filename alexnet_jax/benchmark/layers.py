"""Each layer of the training step as a program of its own, in the form that the step uses on CPU.

A gradient is timed alone: what the forward pass leaves for it was computed before, and the compiler drops what is not
asked for. The bytes that a program must move at least are those of its operands and its results, each once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Program
from alexnet_jax.data.augment import CROP, normalise
from alexnet_jax.model.alexnet import parameter_shapes
from alexnet_jax.model.variants import TOWERS, ChannelNorm, Conv, MaxPool, Variant, layer_sizes
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.config import recipe
from alexnet_jax.training.recipe import optimizer_of, variant_of
from alexnet_jax.training.step import compiler_options, model_on

# {what is timed: (the operands whose gradients it computes, the operands that it has to read)}, by position.
_Gradients = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
_WEIGHT: _Gradients = {'weight gradient': ((1,), (0,))}
_INPUT: _Gradients = {'input gradient': ((0,), (1,))}
_BIAS_RELU: _Gradients = {'backward': ((0, 1), (0,))}
_NORM: _Gradients = {'backward': ((0,), (0,))}
_POOL: _Gradients = {'backward': ((0,), ())}  # of its input, only where each maximum was: a byte, not counted


def programs(setting: Setting) -> dict[str, Program]:
    """{'conv1 forward': ..., 'conv1 weight gradient': ..., 'update': ...} of the paper's network on one device.

    JAX's backend has been prepared for a 1x1 mesh. Activations are the network's own, of random images. Left out is
    what takes no time: the fully connected layers' biases, ReLU and dropout, and the loss.
    """
    config = recipe('imagenet2012', mesh=(1, 1))
    config.width = setting.width
    variant, mesh, key = variant_of(config), make_mesh(1, 1), jax.random.key(0)
    params = parameters(variant, num_classes=setting.classes)
    sizes = layer_sizes(variant, num_classes=setting.classes)
    table = _Table(
        model_on(mesh, variant, num_classes=setting.classes).operations,
        compiler_options(mesh),
        flop={row.name: 2 * row.macs * setting.batch for row in sizes},
    )
    images = jax.random.randint(key, (setting.batch, CROP, CROP, 3), 0, 256, jnp.uint8)
    mean, lighting = jnp.full((CROP, CROP, 3), 127.5), jax.random.normal(key, (setting.batch, 3))
    x = table.add('normalise', lambda x, mean, light: normalise(x, mean, lighting=light), (images, mean, lighting), {})
    for conv in variant.convs:
        x = table.add_convolution(conv, params[conv.name], x)
    x = x.reshape(setting.batch, -1)
    for dense in variant.dense:
        x = table.add(dense.name, jnp.matmul, (x, params[dense.name]['kernel']), _INPUT | _WEIGHT)
        x = jnp.maximum(x, 0)
    table.add_update(optimizer_of(config), params)
    return table.programs


def parameters(variant: Variant, *, num_classes: int) -> dict[str, Any]:
    """Random parameters {layer: {'kernel', 'bias'}}, float32: speed does not depend on them, so NumPy's will do."""
    random = np.random.default_rng(0)
    shapes = parameter_shapes(variant, num_classes=num_classes)
    return jax.tree.map(lambda leaf: jnp.asarray(0.01 * random.standard_normal(leaf.shape, np.float32)), shapes)


class _Table:
    """Collects rows; `add...` return what the layer computes, for the next one."""

    def __init__(self, operations: ModuleType, compiler_options: dict[str, str], *, flop: dict[str, int]) -> None:
        self.programs: dict[str, Program] = {}
        self._operations = operations
        self._jit = functools.partial(jax.jit, compiler_options=compiler_options)
        self._flop = flop

    def add(
        self, name: str, function: Callable[..., Array], operands: tuple[Array, ...], gradients: _Gradients
    ) -> Array:
        """Rows of `function` and of its gradients."""
        # With gradients to come, the forward program also computes what they will need, as in training.
        forward = self._jit((lambda *operands: jax.vjp(function, *operands)) if gradients else function)
        found = jax.block_until_ready(forward(*operands))
        result, pull = found if gradients else (found, None)
        flop = self._flop.get(name, 0)
        self.programs[f'{name} forward'] = Program(_call(forward, *operands), flop, _bytes(operands, result))
        gradient = jnp.ones_like(result) / result.size
        for title, (of, read) in gradients.items():
            backward = self._jit(lambda pull, gradient, of=of: [pull(gradient)[i] for i in of])
            moved = _bytes(gradient, [operands[i] for i in of + read])
            self.programs[f'{name} {title}'] = Program(_call(backward, pull, gradient), flop, moved)
        return result

    def add_convolution(self, conv: Conv, params: dict[str, Array], x: Array) -> Array:
        """Rows of one convolution and of what follows it, a ReLU first."""
        groups = TOWERS if conv.reads == 'tower' else 1
        convolution, add_bias, relu, max_pool, channel_norm = (
            getattr(self._operations, name) for name in ('convolution', 'add_bias', 'relu', 'max_pool', 'channel_norm')
        )
        convolve = functools.partial(convolution, stride=conv.stride, padding=conv.padding, groups=groups)
        x = self.add(conv.name, convolve, (x, params['kernel']), _WEIGHT if conv.reads == 'image' else _INPUT | _WEIGHT)
        x = self.add(
            f'{conv.name} bias, ReLU', lambda x, bias: relu(add_bias(x, bias)), (x, params['bias']), _BIAS_RELU
        )
        for operation in conv.then[1:]:
            match operation:
                case ChannelNorm(size, k, alpha, beta):
                    norm = functools.partial(channel_norm, towers=TOWERS, size=size, k=k, alpha=alpha, beta=beta)
                    x = self.add(f'{conv.name} LRN', norm, (x,), _NORM)
                case MaxPool(window, stride):
                    pool = functools.partial(max_pool, window=window, stride=stride)
                    x = self.add(f'{conv.name} pooling', pool, (x,), _POOL)
                case _:
                    raise ValueError(f'{conv.name}: {operation} is not in the table')
        return x

    def add_update(self, optimizer: optax.GradientTransformationExtraArgs, params: Any) -> None:
        """The row of the update: parameters, gradients and momenta read, parameters and momenta written."""

        def step(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(gradients, state, params, learning_rate=jnp.float32(1e-3))
            return optax.apply_updates(params, updates), state

        donating = self._jit(step, donate_argnums=(0, 1))
        current = jax.tree.map(jnp.copy, params), optimizer.init(params)

        def update() -> None:
            nonlocal current
            current = jax.block_until_ready(donating(*current, params))

        self.programs['update'] = Program(update, moved=5 * _bytes(params))


def _call(function: Callable[..., Any], *operands: Any) -> Callable[[], object]:
    return lambda: jax.block_until_ready(function(*operands))


def _bytes(*trees: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
