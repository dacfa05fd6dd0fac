"""What each CPU form gains: every block of the network in its plain form and in that of ops_cpu, timed in turn.

    python -m experiments.formulations [BATCH] [WIDTH]

Each line is the whole work of a block in training, its value and its gradients, as one program: the plain form as JAX
and XLA's defaults take it, the plain form with the training step's compiler options, and the CPU form with them.
Medians of interleaved rounds; docs/performance.md holds the result.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from alexnet_jax.sharding.backend import tune_allocator

tune_allocator()  # before jax is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import Array  # noqa: E402

from alexnet_jax.model import ops, ops_cpu  # noqa: E402
from alexnet_jax.model.spec import AveragePool, ChannelNorm, MaxPool, SpatialNorm  # noqa: E402
from alexnet_jax.sharding.backend import CPU_COMPILER_OPTIONS  # noqa: E402

ROUNDS = 5
_NORM = {'towers': 2, 'norm': ChannelNorm(size=5, k=2.0, alpha=1e-4, beta=0.75)}
_NORM_OF_MAP = {'norm': SpatialNorm(size=5, k=1.0, alpha=1e-3 / 25, beta=0.75)}
_POOL = {'pool': MaxPool(window=3, stride=2)}
_MEAN = {'pool': AveragePool(window=3, stride=2)}
_SAME5 = {'stride': 1, 'padding': ((2, 2), (2, 2)), 'groups': 2}
_SAME3 = {'stride': 1, 'padding': ((1, 1), (1, 1))}
# {block: (operation, shapes of its operands for one image, the parameters apart, options)}
BLOCKS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...] | None, dict[str, Any]]] = {
    'conv1': ('convolution', (224, 224, 3), (11, 11, 3, 96), {'stride': 4, 'padding': ((0, 3), (0, 3))}),
    'conv2': ('convolution', (27, 27, 96), (5, 5, 48, 256), _SAME5),
    'conv3': ('convolution', (13, 13, 256), (3, 3, 256, 384), _SAME3),
    'conv4': ('convolution', (13, 13, 384), (3, 3, 192, 384), _SAME3 | {'groups': 2}),
    'conv5': ('convolution', (13, 13, 384), (3, 3, 192, 256), _SAME3 | {'groups': 2}),
    'conv1 bias': ('add_bias', (55, 55, 96), (96,), {}),
    'conv2 bias': ('add_bias', (27, 27, 256), (256,), {}),
    'conv1 LRN': ('channel_norm', (55, 55, 96), None, _NORM),
    'conv2 LRN': ('channel_norm', (27, 27, 256), None, _NORM),
    'conv2 LRN of map': ('spatial_norm', (27, 27, 256), None, _NORM_OF_MAP),
    'conv1 pooling': ('max_pool', (55, 55, 96), None, _POOL),
    'conv2 pooling': ('max_pool', (27, 27, 256), None, _POOL),
    'conv5 pooling': ('max_pool', (13, 13, 256), None, _POOL),
    'conv2 mean': ('average_pool', (27, 27, 256), None, _MEAN),
}


def program(operation: Callable[..., Array], options: dict[str, str]) -> Callable[..., Any]:
    """(operands, upstream gradient) -> (value, gradients); conv1's image gets a gradient too, unlike in training."""

    def both(operands: tuple[Array, ...], upstream: Array) -> tuple[Array, tuple[Array, ...]]:
        value, pull = jax.vjp(operation, *operands)
        return value, pull(upstream)

    return jax.jit(both, compiler_options=options)


def scale(shape: tuple[int, ...], width: float) -> tuple[int, ...]:
    """Scales the channels of a shape, but for the image's three."""
    maps = shape[-1:] if len(shape) < 4 else shape[-2:]
    return *shape[: -len(maps)], *(round(n * width) if n > 3 else n for n in maps)


def main(batch: float = 32, width: float = 1.0) -> None:
    """Prints the table."""
    batch = int(batch)
    print(f'batch {batch}, width {width:g}, {jax.devices()[0].device_kind}, medians of {ROUNDS} rounds, milliseconds')
    print(f'{"block":17}{"plain":>10}{"+ options":>11}{"CPU form":>10}{"gain":>7}')
    for block, (name, image, parameter, options) in BLOCKS.items():
        key = jax.random.key(0)
        operands = (jax.random.normal(key, (batch, *scale(image, width))),)
        if parameter:
            operands += (jax.random.normal(key, scale(parameter, width)) * 0.01,)
        plain, fast = (functools.partial(getattr(room, name), **options) for room in (ops, ops_cpu))
        upstream = jnp.ones_like(plain(*operands))
        forms = [program(plain, {}), program(plain, CPU_COMPILER_OPTIONS), program(fast, CPU_COMPILER_OPTIONS)]
        times: list[list[float]] = [[] for _ in forms]
        for turn in range(ROUNDS + 1):
            for form, seconds in zip(forms, times, strict=True):
                began = time.perf_counter()
                jax.block_until_ready(form(operands, upstream))
                if turn:  # the first one compiles
                    seconds.append(time.perf_counter() - began)
        a, b, c = (statistics.median(seconds) * 1e3 for seconds in times)
        print(f'{block:17}{a:10.1f}{b:11.1f}{c:10.1f}{a / c:6.1f}x', flush=True)


if __name__ == '__main__':
    main(*map(float, sys.argv[1:]))
