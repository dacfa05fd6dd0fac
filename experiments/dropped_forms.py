"""Weight gradients in forms that were tried for more speed and are not used: each beside XLA's own, timed in turn.

    python -m experiments.dropped_forms [BATCH]

As matrix products of shifted images, conv1's as that of a 3x3 convolution of 4x4 blocks, and Winograd's. Medians of
interleaved rounds under the training step's compiler options; docs/performance.md holds the result.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable

from alexnet_jax.sharding.backend import tune_allocator

tune_allocator()  # before jax is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax import Array  # noqa: E402

from alexnet_jax.model import ops, ops_cpu  # noqa: E402
from alexnet_jax.sharding.backend import CPU_COMPILER_OPTIONS  # noqa: E402

ROUNDS = 7
_written = jax.lax.optimization_barrier


def own(x: Array, upstream: Array, *, kernel: tuple[int, ...], stride: int, pad: int) -> Array:
    """XLA's."""
    convolution = functools.partial(ops.convolution, x, stride=stride, padding=((pad, pad),) * 2)
    return jax.vjp(convolution, jnp.zeros(kernel))[1](_written(upstream))[0]


def winograd(x: Array, upstream: Array, *, kernel: tuple[int, ...]) -> Array:
    """That of Winograd's convolution of 3x3 neighbourhoods."""
    return jax.vjp(functools.partial(ops_cpu._winograd, x), jnp.zeros(kernel))[1](upstream)[0]


def shifted_products(x: Array, upstream: Array, *, size: int, pad: int) -> Array:
    """The weight gradient at stride 1, for each place of the kernel a product of the shifted image and the gradient."""
    side = upstream.shape[1]
    x = _written(jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
    rows = upstream.reshape(-1, upstream.shape[-1])
    shifts = [_written(x[:, i : i + side, j : j + side]) for i in range(size) for j in range(size)]
    products = [shift.reshape(-1, x.shape[-1]).T @ rows for shift in shifts]
    return jnp.stack(products).reshape(size, size, x.shape[-1], -1)


def blocks(x: Array, upstream: Array, *, product: Callable[[Array, Array], Array]) -> Array:
    """conv1's weight gradient, 11x11 at stride 4, as the 3x3 one of the image's 4x4 blocks, (b, 57, 57, 48)."""
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))).reshape(-1, 57, 4, 57, 4, 3)
    found = product(_written(x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 57, 57, 48)), upstream)
    return found.reshape(3, 3, 4, 4, 3, -1).transpose(0, 2, 1, 3, 4, 5).reshape(12, 12, 3, -1)[:11, :11]


CONV1 = {'kernel': (11, 11, 3, 96), 'stride': 4, 'pad': 0}
CONV2 = {'kernel': (5, 5, 48, 128), 'stride': 1, 'pad': 2}
CONV3 = {'kernel': (3, 3, 256, 384), 'stride': 1, 'pad': 1}
CONV4 = {'kernel': (3, 3, 192, 192), 'stride': 1, 'pad': 1}
# {what: (XLA's own, {form: itself}, shapes of one image and of its upstream gradient)}
CASES = {
    'conv1 weight gradient': (
        functools.partial(own, **CONV1),
        {
            'blocks, shifted': functools.partial(blocks, product=functools.partial(shifted_products, size=3, pad=0)),
            'blocks': functools.partial(blocks, product=functools.partial(own, kernel=(3, 3, 48, 96), stride=1, pad=0)),
        },
        (227, 227, 3),
        (55, 55, 96),
    ),
    'conv2 weight gradient, a group': (
        functools.partial(own, **CONV2),
        {'shifted': functools.partial(shifted_products, size=5, pad=2)},
        (27, 27, 48),
        (27, 27, 128),
    ),
    'conv4 weight gradient, a group': (
        functools.partial(own, **CONV4),
        {'shifted': functools.partial(shifted_products, size=3, pad=1)},
        (13, 13, 192),
        (13, 13, 192),
    ),
    'conv3 weight gradient': (
        functools.partial(own, **CONV3),
        {'Winograd': functools.partial(winograd, kernel=CONV3['kernel'])},
        (13, 13, 256),
        (13, 13, 384),
    ),
}


def main(batch: int) -> None:
    """Prints the table: milliseconds of each form, its speed beside XLA's own, its largest difference."""
    print(f'batch {batch}, {jax.devices()[0].device_kind}, medians of {ROUNDS} rounds')
    for what, (plain, forms, image, upstream) in CASES.items():
        operands = [jax.random.normal(jax.random.key(0), (batch, *shape)) for shape in (image, upstream)]
        programs = {'own': plain, **forms}
        programs = {name: jax.jit(form, compiler_options=CPU_COMPILER_OPTIONS) for name, form in programs.items()}
        results = {name: form(*operands) for name, form in programs.items()}
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(ROUNDS):
            for name, form in programs.items():
                began = time.perf_counter()
                jax.block_until_ready(form(*operands))
                times[name].append(time.perf_counter() - began)
        for name, seconds in times.items():
            gain = statistics.median(times['own']) / statistics.median(seconds)
            difference = float(abs(results[name] - results['own']).max() / abs(results['own']).max())
            print(
                f'{what:32}{name:17}{statistics.median(seconds) * 1e3:8.1f} ms{gain:7.2f}x{difference:9.0e}', flush=True
            )


if __name__ == '__main__':
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 128)
