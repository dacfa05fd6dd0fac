"""The operations of ops.py in the forms that XLA:CPU runs fast: the same arguments, numbers and gradients.

Its compiler treats five things badly; docs/performance.md has what each form gains.

* a grouped convolution, above all its weight gradient: one convolution per group, 5 to 7 times faster;
* a 3x3 convolution is computed as it is defined: of many channels in tiles, with 16 products for 36, 1.2 to 1.35 times
  faster;
* what a convolution reads is copied place by place: of few outputs for four places at once;
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
from alexnet_jax.model.ops import local_convolution as local_convolution
from alexnet_jax.model.response_norm import Norm
from alexnet_jax.model.spec import AveragePool, MaxPool

_written = lax.optimization_barrier
_MANY = 128  # channels in and out, with fewer of which Winograd's products are too small to pay for its sums
_FEW = 16  # outputs, with so few of which copying what a convolution reads takes longer than its products
_Padding = tuple[tuple[int, int], ...]


def convolution(
    x: Array, kernel: Array, *, stride: int, padding: tuple[tuple[int, int], tuple[int, int]], groups: int = 1
) -> Array:
    """ops.convolution, each group a convolution of its own, in the form that suits its shape."""
    one = functools.partial(_convolution, stride=stride, padding=padding)
    if groups == 1:
        return one(x, kernel)
    # Gradients pass the same barriers, so that what is split and joined is written once in both directions.
    parts = zip(_written(jnp.split(_written(x), groups, axis=-1)), jnp.split(kernel, groups, axis=-1), strict=True)
    return _written(jnp.concatenate(_written([one(a, k) for a, k in parts]), axis=-1))


def _convolution(x: Array, kernel: Array, *, stride: int, padding: _Padding) -> Array:
    return _convolve(stride, padding, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolve(stride: int, padding: _Padding, x: Array, kernel: Array) -> Array:
    h, w, channels, out = kernel.shape
    precise = x.dtype.itemsize >= 4  # Winograd's sums and differences of pixels would cost bfloat16 two of eight bits
    if precise and (h, w) == (3, 3) and _keeps_size(stride, padding, kernel) and min(channels, out) >= _MANY:
        return _winograd(x, kernel)
    return _convolve_directly(stride, padding, x, kernel)


# The image's gradient is a convolution too, of the upstream gradient with the kernel turned around, and takes the form
# that suits its shape. The kernel's is left to XLA, 1.1 to 1.4 times faster at it than Winograd's form.
def _convolve_backward(
    stride: int, padding: _Padding, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    gradient = _written(gradient)
    (of_kernel,) = jax.vjp(functools.partial(_convolve_directly, stride, padding, x), kernel)[1](gradient)
    if _keeps_size(stride, padding, kernel):
        return _convolve(stride, padding, gradient, kernel[::-1, ::-1].swapaxes(2, 3)), of_kernel
    plain = functools.partial(ops.convolution, kernel=kernel, stride=stride, padding=padding)
    return *jax.vjp(plain, x)[1](gradient), of_kernel


def _keeps_size(stride: int, padding: _Padding, kernel: Array) -> bool:
    sides = kernel.shape[:2]
    odd = all(side % 2 for side in sides)
    return stride == 1 and odd and padding == tuple((side // 2, side // 2) for side in sides)


_convolve.defvjp(
    lambda stride, padding, x, kernel: (_convolve(stride, padding, x, kernel), (x, kernel)), _convolve_backward
)


def _convolve_directly(stride: int, padding: _Padding, x: Array, kernel: Array) -> Array:
    """ops.convolution; of few outputs and large windows four places at a time.

    XLA:CPU copies every pixel that a place reads, 363 for conv1's, which takes longer than 12 products with each. 2x2
    neighbouring places, computed as the channels of one by a larger kernel, read 675 together.
    """
    h, w, _, out = kernel.shape
    if min(h, w) < 5 or out > _FEW:
        return _written(ops.convolution(x, kernel, stride=stride, padding=padding))
    reach = zip(x.shape[1:3], padding, (h, w), strict=True)
    rows, columns = ((size + sum(pad) - side) // stride + 1 for size, pad, side in reach)
    shifts = [((i, stride - i), (j, stride - j), (0, 0), (0, 0)) for i in (0, stride) for j in (0, stride)]
    merged = _written(jnp.concatenate([jnp.pad(kernel, shift) for shift in shifts], axis=-1))
    # A last place without a neighbour is given one.
    padding = tuple((a, b + stride * (n % 2)) for (a, b), n in zip(padding, (rows, columns), strict=True))
    y = _written(ops.convolution(x, merged, stride=2 * stride, padding=padding))
    y = y.reshape(*y.shape[:3], 2, 2, out).swapaxes(2, 3).reshape(len(x), 2 * y.shape[1], 2 * y.shape[2], out)
    return _written(y[:, :rows, :columns])


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


def average_pool(x: Array, pool: AveragePool) -> Array:
    """ops.average_pool; its gradient is gathered."""
    wide = jnp.pad(x.astype(jnp.promote_types(x.dtype, jnp.float32)), ops.pad_windows(x, pool))
    sums = _sum_windows(wide, pool.window, pool.stride, wide.shape[1:3])
    return (sums / ops.count_pixels(x, pool)).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _sum_windows(x: Array, window: int, stride: int, size: tuple[int, int]) -> Array:
    del size  # of x, for the gradient
    return _written(sum(ops.cut_windows(x, window, stride)))


def _sum_windows_backward(window: int, stride: int, size: tuple[int, int], _: None, gradient: Array) -> tuple[Array]:
    return (_gather_windows(window, stride, size, lambda gradient, place: gradient, _written(gradient)),)


_sum_windows.defvjp(
    lambda x, window, stride, size: (_sum_windows(x, window, stride, size), None), _sum_windows_backward
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, window: int, stride: int, size: tuple[int, int]) -> Array:
    del size  # of x, for the gradient
    return _first_maximum(x, window, stride)[0]


def _first_maximum(x: Array, window: int, stride: int) -> tuple[Array, Array]:
    return _written(ops.find_first_maximum(x, window, stride))


def _max_pool_backward(
    window: int, stride: int, size: tuple[int, int], position: Array, gradient: Array
) -> tuple[Array]:
    def take(gradient: Array, position: Array, place: int) -> Array:
        return jnp.where(position == place, gradient, 0)  # past the edges a gradient of 0 is taken by any place

    return (_gather_windows(window, stride, size, take, gradient, position),)


def _gather_windows(
    window: int, stride: int, size: tuple[int, int], take: Callable[..., Array], *windows: Array
) -> Array:
    """Returns for each pixel of an image of `size` the sum of take(*windows, place) over the windows that it lies in.

    `windows` are (b, h', w', c), what each window has to give; `place` is where in it the pixel lies, in row order.
    """
    # Pixel (stride * q + a) lies in the windows q - d, at their place a + stride * d. Pixels of one remainder (a, b) so
    # look at the same few shifts of the windows, and all remainders interleaved are the image.
    (h, w), (images, out_h, out_w, channels) = size, windows[0].shape
    rows, columns, reach = -(-h // stride), -(-w // stride), (window - 1) // stride
    edges = ((0, 0), (reach, rows - out_h), (reach, columns - out_w), (0, 0))
    windows = tuple(jnp.pad(each, edges) for each in windows)

    def taken(i: int, j: int) -> Array:
        r, c = reach - i // stride, reach - j // stride
        return take(*(each[:, r : r + rows, c : c + columns] for each in windows), i * window + j)

    nothing = jnp.zeros_like(taken(0, 0))  # for the pixels that no window sees, where stride > window
    remainders = [
        sum((taken(i, j) for i in range(a, window, stride) for j in range(b, window, stride)), nothing)
        for a, b in itertools.product(range(stride), repeat=2)
    ]
    lines = [jnp.stack(remainders[n : n + stride], axis=3) for n in range(0, stride**2, stride)]
    pixels = jnp.stack(lines, axis=2).reshape(images, rows * stride, columns * stride, channels)
    return _written(pixels[:, :h, :w])


_max_pool.defvjp(lambda x, window, stride, size: _first_maximum(x, window, stride), _max_pool_backward)


def _apply_in_a_row(function: Callable[..., Array], *arrays: Array) -> Array:
    """Computes function(*arrays), of arrays of one shape, element by element as if each were one long row.

    XLA:CPU's loops run along the last axis: of 12 channels a tower they are too short to be computed as vectors.
    """
    return _written(function(*_written([array.reshape(-1) for array in arrays]))).reshape(arrays[0].shape)


class _NormByAxes(Norm):
    """Norm that sums along one axis after the other: of 5x5 places 10 numbers in place of 25."""

    def sum(self, x: Array, *, transposed: bool = False) -> Array:
        for axis in self.axes:
            x = _written(Norm(self.constants, (axis,)).sum(x, transposed=transposed))
        return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise(norm: Norm, x: Array) -> Array:
    return _NormByAxes(norm.constants, norm.axes)(x, each=_apply_in_a_row)


def _normalise_backward(norm: Norm, x: Array, gradient: Array) -> tuple[Array]:
    wide = jnp.promote_types(x.dtype, jnp.float32)
    norm = _NormByAxes(norm.constants, norm.axes)
    return (norm.pull(x.astype(wide), gradient.astype(wide), each=_apply_in_a_row).astype(x.dtype),)


# They keep x alone, and sum its squares again for the gradient.
_normalise.defvjp(lambda norm, x: (_normalise(norm, x), x), _normalise_backward)
channel_norm = functools.partial(ops.channel_norm, apply=_normalise)
spatial_norm = functools.partial(ops.spatial_norm, apply=_normalise)
