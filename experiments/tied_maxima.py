"""Measures what the gradient of equal maxima amounts to: python -m experiments.tied_maxima DIR, of photographs.

Max-pooling gives its gradient to the first of a window's equal maxima here, and to each of them in cuda-convnet (CC
src/cudaconv2/conv_util.cu, kLocalMaxUndo). Of `released` with its first weights, in testing, on the first 16 images.
"""

import functools
import pathlib
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.photo import square_image
from alexnet_jax.model import ops
from alexnet_jax.model.alexnet import AlexNet, init_parameters
from alexnet_jax.model.spec import MaxPool
from alexnet_jax.model.zoo import RELEASED
from alexnet_jax.training.step import cross_entropy

IMAGES, CLASSES = 16, 1000


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Array, pool: MaxPool) -> Array:
    """ops.max_pool, whose gradient goes to all of a window's equal maxima."""
    return ops.max_pool(x, pool)


def _forward(x: Array, pool: MaxPool) -> tuple[Array, tuple[Array, Array]]:
    y = ops.max_pool(x, pool)
    return y, (x, y)


def _backward(pool: MaxPool, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, y = residuals
    found, (rows, columns) = jnp.zeros_like(x), y.shape[1:3]
    for i in range(pool.window):
        for j in range(pool.window):
            place = (
                slice(None),
                slice(i, i + pool.stride * (rows - 1) + 1, pool.stride),
                slice(j, j + pool.stride * (columns - 1) + 1, pool.stride),
            )
            found = found.at[place].add(jnp.where(x[place] == y, gradient, 0))
    return (found,)


max_pool.defvjp(_forward, _backward)


def compute_gradients(images: np.ndarray, *, dtype: Any, operations: Any) -> dict[str, np.ndarray]:
    """Computes the gradients of the kernels, of 1,000 classes by turns."""
    params = init_parameters(RELEASED, jax.random.key(0), num_classes=CLASSES)
    model = AlexNet(RELEASED, CLASSES, dtype=dtype, operations=operations)
    labels = jnp.arange(len(images)) * 61 % CLASSES

    @jax.jit
    def gradients(params: Any) -> Any:
        return jax.grad(lambda p: cross_entropy(model.apply({'params': p}, images), labels).mean())(params)

    return {layer: np.asarray(leaves['kernel'], np.float64) for layer, leaves in gradients(params).items()}


def main() -> None:
    """Prints a line for each precision and convolution."""
    paths = sorted(path for path in pathlib.Path(sys.argv[1]).rglob('*') if path.is_file())[:IMAGES]
    crops = np.stack([centre_crop(square_image(path.read_bytes())) for path in paths]).astype(np.float32)
    images = crops - crops.mean(axis=(0, 1, 2))
    tied = types.SimpleNamespace(**vars(ops) | {'max_pool': max_pool})
    print("difference of the kernels' gradients, |all - first| / |first|")
    print(f'{"":10}' + ''.join(f'{f"conv{i}":>9}' for i in range(1, 6)))
    for name, dtype in (('float32', None), ('bfloat16', jnp.bfloat16)):
        first, every = (compute_gradients(images, dtype=dtype, operations=form) for form in (ops, tied))
        parts = [
            np.linalg.norm(every[f'conv{i}'] - first[f'conv{i}']) / np.linalg.norm(first[f'conv{i}'])
            for i in range(1, 6)
        ]
        print(f'{name:10}' + ''.join(f'{part:9.1e}' for part in parts), flush=True)


if __name__ == '__main__':
    main()
