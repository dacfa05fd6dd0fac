"""The operations of ops.py in the forms that move the least memory on a GPU: the same arguments, numbers and gradients.

Between two convolutions a GPU does little but read and write maps. What XLA makes of the plain forms there, and of
these, is in docs/gpu.md, kernel by kernel. The plain ones keep arrays that these do not:

* what ReLU reads, for its gradient, beside what it gives: the convolution before it is then not cuDNN's with ReLU;
* what normalisation divides by, in float32, and the sums of its gradient in float32;
* four arrays of indices, int32, for max-pooling's gradient, which is a scatter: gathered from the maxima's positions.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.model import ops
from alexnet_jax.model.ops import add_bias as add_bias
from alexnet_jax.model.ops import average_pool as average_pool
from alexnet_jax.model.ops import convolution as convolution
from alexnet_jax.model.ops import local_convolution as local_convolution
from alexnet_jax.model.ops import sigmoid as sigmoid
from alexnet_jax.model.ops import tanh as tanh
from alexnet_jax.model.response_norm import Norm
from alexnet_jax.model.spec import MaxPool


@jax.custom_jvp
def relu(x: Array) -> Array:
    """ops.relu, whose gradient is told by what it gave, which the next layer keeps anyway."""
    return jnp.maximum(x, 0)


# Without the barrier XLA would see that x > 0 wherever y > 0, and keep x as well.
relu.defjvps(lambda tangent, y, x: lax.select(lax.optimization_barrier(y) > 0, tangent, lax.full_like(tangent, 0)))


def max_pool(x: Array, pool: MaxPool) -> Array:
    """ops.max_pool for windows of up to 15; keeps each maximum's position, one byte, for the gradient."""
    if pool.partial:
        x = jnp.pad(x, ops.pad_windows(x, pool), constant_values=-jnp.inf)
    return _max_pool(x, pool.window, pool.stride, x.shape[1:3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, window: int, stride: int, size: tuple[int, int]) -> Array:
    del size  # of x, for the gradient
    return ops.find_first_maximum(x, window, stride)[0]


def _max_pool_backward(
    window: int, stride: int, size: tuple[int, int], position: Array, gradient: Array
) -> tuple[Array]:
    # One kernel: a pixel reads the few windows that it is in, because the others' terms are padding there.
    wide = jnp.promote_types(gradient.dtype, jnp.float32)

    def spread(i: int, j: int) -> Array:
        """The gradient of the windows whose maximum is at (i, j), where their (i, j) pixel is; elsewhere 0."""
        taken = jnp.where(position == i * window + j, gradient.astype(wide), 0)
        reach = ((n - 1) * stride + 1 for n in gradient.shape[1:3])
        edges = [(before, side - before - n, stride - 1) for before, side, n in zip((i, j), size, reach, strict=True)]
        return lax.pad(taken, jnp.zeros((), wide), [(0, 0, 0), *edges, (0, 0, 0)])

    first, *others = (spread(i, j) for i, j in itertools.product(range(window), repeat=2))
    return (sum(others, first).astype(gradient.dtype),)


_max_pool.defvjp(lambda x, window, stride, size: ops.find_first_maximum(x, window, stride), _max_pool_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise(norm: Norm, x: Array) -> Array:
    return norm(x)


def _normalise_backward(norm: Norm, x: Array, gradient: Array) -> tuple[Array]:
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x = lax.optimization_barrier(x)  # or the forward pass would write its float32 sums for here

    def write(term: Array) -> Array:
        # Each is read in several windows, too dear to be computed in each: written, in the precision of the maps.
        return lax.optimization_barrier(term.astype(dtype)).astype(wide)

    return (norm.pull(x.astype(wide), gradient.astype(wide), write=write).astype(dtype),)


# They keep x alone, and sum its squares again for the gradient.
_normalise.defvjp(lambda norm, x: (_normalise(norm, x), x), _normalise_backward)
channel_norm = functools.partial(ops.channel_norm, apply=_normalise)
spatial_norm = functools.partial(ops.spatial_norm, apply=_normalise)
