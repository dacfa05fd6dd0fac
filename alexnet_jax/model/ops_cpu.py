"""The operations of ops.py in the forms that XLA:CPU runs fast: the same arguments, numbers and gradients.

Its compiler treats five things badly; docs/performance.md has what each form gains.

* a grouped convolution, above all its weight gradient: one convolution per group, 5 to 7 times faster;
* a 3x3 convolution is computed as it is defined: in tiles, with 16 products for 36, 1.2 to 1.35 times faster;
* a column sum, such as a bias's gradient, under the training step's compiler options: a matrix product with ones;
* the scatter behind max-pooling's gradient: gathered from saved positions of the maxima, 10 times faster;
* fusion without end: an elementwise chain is computed again inside each of its readers. `optimization_barrier` marks
  where a value is to be written to memory once (training.step keeps XLA from removing it).
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from alexnet_jax.model import ops
from alexnet_jax.model.ops import average_pool as average_pool
from alexnet_jax.model.ops import local_convolution as local_convolution
from alexnet_jax.model.spec import MaxPool

_written = lax.optimization_barrier


def convolution(
    x: Array, kernel: Array, *, stride: int, padding: tuple[tuple[int, int], tuple[int, int]], groups: int = 1
) -> Array:
    """ops.convolution, each group a convolution of its own; of 3x3 neighbourhoods by Winograd's algorithm."""
    precise = x.dtype.itemsize >= 4  # its sums and differences of pixels would cost bfloat16 two of eight bits
    one: Callable[[Array, Array], Array]
    if precise and kernel.shape[:2] == (3, 3) and stride == 1 and padding == ((1, 1), (1, 1)):
        one = _convolution3x3
    else:
        one = functools.partial(_convolution, stride=stride, padding=padding)
    if groups == 1:
        return one(x, kernel)
    # Gradients pass the same barriers, so that what is split and joined is written once in both directions.
    parts = zip(_written(jnp.split(_written(x), groups, axis=-1)), jnp.split(kernel, groups, axis=-1), strict=True)
    return _written(jnp.concatenate(_written([one(a, k) for a, k in parts]), axis=-1))


def _convolution(x: Array, kernel: Array, *, stride: int, padding: tuple[tuple[int, int], ...]) -> Array:
    return _written(ops.convolution(x, kernel, stride=stride, padding=padding))


@jax.custom_vjp
def _convolution3x3(x: Array, kernel: Array) -> Array:
    return _winograd(x, kernel)


# The image's gradient is the same convolution of the upstream gradient, with the kernel turned around. The kernel's is
# left to XLA, which is 1.1 to 1.4 times faster at it than Winograd's form would be.
def _convolution3x3_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    gradient = _written(gradient)
    plain = functools.partial(ops.convolution, x, stride=1, padding=((1, 1), (1, 1)))
    (kernel_gradient,) = jax.vjp(plain, kernel)[1](gradient)
    return _winograd(gradient, kernel[::-1, ::-1].swapaxes(2, 3)), kernel_gradient


_convolution3x3.defvjp(lambda x, kernel: (_convolution3x3(x, kernel), (x, kernel)), _convolution3x3_backward)


def _winograd(x: Array, kernel: Array) -> Array:
    """ops.convolution of 3x3 neighbourhoods, computed in tiles of 2x2: 16 products in place of 36.

    F(2x2, 3x3) of Lavin and Gray 2015, section 4.1: Y = A' [(G g G') * (B' d B)] A for each tile, as 16 matrix products
    over all tiles and channels.
    """
    (images, h, w, _), out = x.shape, kernel.shape[-1]
    rows, columns = -(-h // 2), -(-w // 2)
    x = jnp.pad(x, ((0, 0), (1, 2 * rows - h + 1), (1, 2 * columns - w + 1), (0, 0)))

    def spread(a: Array, axis: int) -> list[Array]:
        d = [lax.slice_in_dim(a, place, a.shape[axis] - 3 + place, 2, axis) for place in range(4)]
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]

    def gathered(m: Array) -> list[Array]:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    tiles = _written(jnp.stack([tile for part in spread(x, 1) for tile in spread(part, 2)]))
    g = jnp.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], kernel.dtype)
    weights = _written(jnp.einsum('ai,bj,ijcd->abcd', g, g, kernel)).reshape(16, -1, out)
    products = _written(tiles.reshape(16, -1, x.shape[-1]) @ weights).reshape(4, 4, images, rows, columns, out)
    lines = [jnp.stack(gathered(part), axis=3) for part in gathered(products)]
    pixels = jnp.stack(lines, axis=2)
    return _written(pixels.reshape(images, 2 * rows, 2 * columns, out)[:, :h, :w])


def add_bias(x: Array, bias: Array) -> Array:
    """ops.add_bias; the bias's gradient is a matrix product."""
    return _add_bias(bias.dtype, x, bias) if bias.ndim == 1 else ops.add_bias(x, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _add_bias(dtype: DTypeLike, x: Array, bias: Array) -> Array:
    return x + bias.astype(x.dtype)


def _add_bias_backward(dtype: DTypeLike, _: None, gradient: Array) -> tuple[Array, Array]:
    gradient = _written(gradient)
    images = gradient.shape[0] if gradient.ndim > 2 else 1
    rows = gradient.reshape(images, -1, gradient.shape[-1])
    ones = jnp.ones((images, 1, rows.shape[1]), gradient.dtype)
    sums = jnp.matmul(ones, rows, preferred_element_type=jnp.promote_types(gradient.dtype, jnp.float32))
    return gradient, sums.sum(axis=(0, 1)).astype(dtype)


_add_bias.defvjp(lambda dtype, x, bias: (_add_bias(dtype, x, bias), None), _add_bias_backward)


def _make_activation(
    function: Callable[[Array], Array], backward: Callable[[Array, Array], Array]
) -> Callable[[Array], Array]:
    """Makes an activation that keeps its output y for backward(y, gradient): the next layer keeps it anyway."""

    @jax.custom_vjp
    def activation(x: Array) -> Array:
        return _written(function(x))

    def forward(x: Array) -> tuple[Array, Array]:
        y = activation(x)
        return y, y

    activation.defvjp(forward, lambda y, gradient: (backward(y, gradient),))
    return activation


relu = _make_activation(lambda x: jnp.maximum(x, 0), lambda y, gradient: jnp.where(y > 0, gradient, 0))
tanh = _make_activation(jnp.tanh, lambda y, gradient: gradient * (1 - y * y))
sigmoid = _make_activation(jax.nn.sigmoid, lambda y, gradient: gradient * (y * (1 - y)))


def max_pool(x: Array, pool: MaxPool) -> Array:
    """ops.max_pool for windows of up to 15; keeps each maximum's position, one byte, for the gradient."""
    if pool.partial:
        x = jnp.pad(x, ops.pad_windows(x, pool), constant_values=-jnp.inf)
    return _max_pool(x, pool.window, pool.stride, x.shape[1:3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, window: int, stride: int, size: tuple[int, int]) -> Array:
    del size  # of x, for the gradient
    return _first_maximum(x, window, stride)[0]


def _first_maximum(x: Array, window: int, stride: int) -> tuple[Array, Array]:
    return _written(ops.find_first_maximum(x, window, stride))


def _max_pool_backward(
    window: int, stride: int, size: tuple[int, int], position: Array, gradient: Array
) -> tuple[Array]:
    # Pixel (stride * q + a) lies in the windows q - d, at their place a + stride * d. Pixels of one remainder (a, b) so
    # look at the same few shifts of the windows, and all remainders interleaved are the image.
    (h, w), (out_h, out_w) = size, gradient.shape[1:3]
    rows, columns, reach = -(-h // stride), -(-w // stride), (window - 1) // stride
    edges = ((0, 0), (reach, rows - out_h), (reach, columns - out_w), (0, 0))
    gradient, position = jnp.pad(gradient, edges), jnp.pad(position, edges)  # a gradient of 0 is taken by any place

    def taken(i: int, j: int) -> Array:
        """The gradient of the windows whose maximum is at (i, j), where their (i, j) pixel is; elsewhere 0."""
        r, c = reach - i // stride, reach - j // stride
        region = (slice(None), slice(r, r + rows), slice(c, c + columns))
        return jnp.where(position[region] == i * window + j, gradient[region], 0)

    nothing = jnp.zeros_like(taken(0, 0))  # for the pixels that no window sees, where stride > window
    remainders = [
        sum((taken(i, j) for i in range(a, window, stride) for j in range(b, window, stride)), nothing)
        for a, b in itertools.product(range(stride), repeat=2)
    ]
    lines = [jnp.stack(remainders[n : n + stride], axis=3) for n in range(0, stride**2, stride)]
    pixels = jnp.stack(lines, axis=2).reshape(gradient.shape[0], rows * stride, columns * stride, -1)
    return (_written(pixels[:, :h, :w]),)


_max_pool.defvjp(lambda x, window, stride, size: _first_maximum(x, window, stride), _max_pool_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise(norm: ops.Norm, x: Array) -> Array:
    # Written before and after, to keep the split into towers out of the loops: XLA:CPU would compute every index anew.
    return _written(norm(_written(x)))


def _normalise_backward(norm: ops.Norm, x: Array, gradient: Array) -> tuple[Array]:
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x, gradient = _written((x.astype(wide), gradient.astype(wide)))
    return (norm.pull(x, gradient, write=_written).astype(dtype),)


# They keep x alone, and sum its squares again for the gradient.
_normalise.defvjp(lambda norm, x: (_normalise(norm, x), x), _normalise_backward)
channel_norm = functools.partial(ops.channel_norm, apply=_normalise)
spatial_norm = functools.partial(ops.spatial_norm, apply=_normalise)
