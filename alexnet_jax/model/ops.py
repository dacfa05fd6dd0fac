"""AlexNet's operations as pure functions on one device's share of the network.

Images are NHWC. A device holds `towers` towers (2 on one device, 1 on each of two); its channel axis is the towers
one after the other, and no operation here mixes them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from alexnet_jax.model.response_norm import Norm
from alexnet_jax.model.spec import Activation, AveragePool, ChannelNorm, MaxPool, Relu, SpatialNorm, Tanh


def _widen(dtype: DTypeLike) -> DTypeLike:
    """Returns the dtype in which numbers of `dtype` are summed."""
    return jnp.promote_types(dtype, jnp.float32)


relu = jax.nn.relu  # with a gradient of 0 at 0 (paper section 3.1)
tanh = jnp.tanh
sigmoid = jax.nn.sigmoid
SATURATED = 0.01  # of an activation's largest slope: with less a unit is called saturated


def relative_slope(activation: Activation, y: Array) -> Array:
    """Computes an activation's slope, as a fraction of its largest, where its output is y; float32 at least."""
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    match activation:
        case Relu():
            return (y > 0).astype(y.dtype)
        case Tanh():
            return 1 - y * y
        case _:  # a sigmoid, whose slope is y (1 - y), at most 1/4
            return 4 * y * (1 - y)


def convolution(
    x: Array, kernel: Array, *, stride: int, padding: tuple[tuple[int, int], ...], groups: int = 1
) -> Array:
    """Cross-correlation of x (b, h, w, groups * i) with kernel (kh, kw, i, o): (b, h', w', o).

    Group g reads the g-th block of input channels and writes the g-th block of outputs.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=groups,
    )


def local_convolution(x: Array, kernel: Array, *, side: int, padding: tuple[tuple[int, int], ...]) -> Array:
    """`convolution` with a kernel of its own at every place (CHM `type=local`): (b, h, w, i) -> (b, h', w', o).

    `kernel` is (h', w', side * side * i, o): the weights of a place in row, column, channel order.
    """
    # Cut out of a wide copy: a pixel's gradient is a sum over side * side places, and is taken in the copy's dtype.
    wide = jnp.pad(x.astype(_widen(x.dtype)), ((0, 0), *padding, (0, 0)))
    rows, columns = kernel.shape[:2]
    places = [wide[:, i : i + rows, j : j + columns].astype(x.dtype) for i in range(side) for j in range(side)]
    return jnp.einsum('bhwk,hwko->bhwo', jnp.concatenate(places, axis=-1), kernel)


def add_bias(x: Array, bias: Array) -> Array:
    """x (..., c) + bias (c,), or a bias of its own for every place, (h, w, c); in the dtype of x.

    The bias's gradient is summed in float32 at least and keeps the dtype of the bias. A sum of bfloat16 numbers stops
    growing at a few hundred of them, and conv1's bias has 3,025 an image.
    """
    return x + bias if x.dtype == bias.dtype == _widen(x.dtype) else _add_rounded_bias(x, bias)


@jax.custom_jvp
def _add_rounded_bias(x: Array, bias: Array) -> Array:
    return x + bias.astype(x.dtype)


@_add_rounded_bias.defjvp
def _add_rounded_bias_jvp(given: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    dx, dbias = tangents  # added up wide, so that the transpose, which is the sum, is wide as well
    wide = _widen(dx.dtype)
    return _add_rounded_bias(*given), (dx.astype(wide) + dbias.astype(wide)).astype(dx.dtype)


@jax.custom_jvp
def matmul_wide(x: Array, kernel: Array) -> Array:
    """x (b, i) @ kernel (i, o) with the sums as they are added up, float32 at least; rounded they would often be equal.

    Products of derivatives come in the dtype of x, as those of the other layers.
    """
    return jnp.matmul(x, kernel, preferred_element_type=_widen(x.dtype))


@matmul_wide.defjvp
def _matmul_wide_jvp(given: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, kernel), (dx, dkernel) = given, tangents
    product = matmul_wide(x, kernel)
    return product, (dx @ kernel + x @ dkernel).astype(product.dtype)


@jax.custom_vjp
def matmul_deferred(x: Array, kernel: Array, factors: tuple[Array, Array]) -> Array:
    """`matmul_wide` in the dtype of `factors[1]`, whose kernel is given no gradient.

    What `factors` hold is not read, (b, i) and (b, o). Their gradients are x and that of the product: the two whose
    product over a batch, x^T dy, is the kernel's, to be computed once for many parts of one.
    """
    return jnp.matmul(x, kernel, preferred_element_type=factors[1].dtype)


def _matmul_deferred_backward(
    residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, None, tuple[Array, Array]]:
    x, kernel = residuals
    return gradient.astype(x.dtype) @ kernel.T, None, (x, gradient)


matmul_deferred.defvjp(
    lambda x, kernel, factors: (matmul_deferred(x, kernel, factors), (x, kernel)), _matmul_deferred_backward
)


def max_pool(x: Array, pool: MaxPool) -> Array:
    """Returns the maximum of each window of x, (b, h, w, c) -> (b, h', w', c).

    Of equal maxima the first in row order gets the gradient.
    """
    return lax.reduce_window(x, -jnp.inf, lax.max, *_make_windows(x, pool))


def find_first_maximum(x: Array, window: int, stride: int) -> tuple[Array, Array]:
    """Returns each whole window's maximum and its first place in row order, uint8 0..window**2 - 1, for up to 15^2.

    Both are (b, h', w', c).
    """
    first, *others = cut_windows(x, window, stride)
    maximum, position = first, jnp.zeros_like(first, jnp.uint8)
    for index, shifted in enumerate(others, start=1):
        position = jnp.where(shifted > maximum, jnp.uint8(index), position)
        maximum = jnp.maximum(shifted, maximum)
    return maximum, position


def cut_windows(x: Array, window: int, stride: int) -> list[Array]:
    """Returns for each place of a window, in row order, what the whole windows of x have there, (b, h', w', c)."""
    rows, columns = ((size - window) // stride * stride + 1 for size in x.shape[1:3])
    places = itertools.product(range(window), repeat=2)
    return [x[:, i : i + rows : stride, j : j + columns : stride] for i, j in places]


def average_pool(x: Array, pool: AveragePool) -> Array:
    """Returns the mean over the pixels of x in each window of `max_pool` (see model.spec.AveragePool).

    Sums are at least float32, whatever x is.
    """
    sums = lax.reduce_window(x.astype(_widen(x.dtype)), 0.0, lax.add, *_make_windows(x, pool))
    return (sums / count_pixels(x, pool)).astype(x.dtype)


def count_pixels(x: Array, pool: AveragePool) -> Array | int:
    """Returns what `average_pool` divides by, a number, or one for each window, (1, h', w', 1); float32 at least."""
    if pool.divides_by == 'window':
        return pool.window**2
    ones = jnp.ones((1, *x.shape[1:3], 1), _widen(x.dtype))
    return lax.reduce_window(ones, 0.0, lax.add, *_make_windows(ones, pool))


def pad_windows(x: Array, pool: MaxPool | AveragePool) -> tuple[tuple[int, int], ...]:
    """Returns the padding of x (b, h, w, c) with which `partial` windows are whole: behind it, as far as they reach."""
    rows, columns = ((pool.window - size) % pool.stride if pool.partial else 0 for size in x.shape[1:3])
    return (0, 0), (0, rows), (0, columns), (0, 0)


def _make_windows(x: Array, pool: MaxPool | AveragePool) -> tuple[tuple, tuple, tuple]:
    return (1, pool.window, pool.window, 1), (1, pool.stride, pool.stride, 1), pad_windows(x, pool)


def channel_norm(
    x: Array, norm: ChannelNorm, *, towers: int, apply: Callable[[Norm, Array], Array] = Norm.__call__
) -> Array:
    """Normalises across channels, within each tower (paper section 3.3).

    Channel i sees the channels j of the same tower with |j - i| <= size // 2. In the paper channel 47 of conv1 never
    sees channel 48: they live on different GPUs.
    """
    split = x.reshape(*x.shape[:-1], towers, -1)
    return apply(Norm(norm, axes=(-1,)), split).reshape(x.shape)


def spatial_norm(x: Array, norm: SpatialNorm, *, apply: Callable[[Norm, Array], Array] = Norm.__call__) -> Array:
    """Normalises within each map, over a `size` x `size` window (CHM layers/layers-145.cfg, rnorm2)."""
    return apply(Norm(norm, axes=(1, 2)), x)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DropoutStream:
    """Where a device's dropout masks come from: the same masks on every mesh, without a word exchanged.

    A unit's mask depends on the key, its image's row in the global batch and its tower, never on the device.

    Attributes:
      key: PRNG key of this training step.
      rows: int32 (b,), the global batch rows that this device holds.
      towers: int32 (t,), the towers that this device holds, whole or one of `parts` equal parts of one.
      part: int32, which part.
    """

    key: Array
    rows: Array
    towers: Array
    part: Array | int = 0
    parts: int = dataclasses.field(default=1, metadata={'static': True})

    def of_both_towers(self) -> DropoutStream:
        """The masks of all units of these rows, for a device that has them all."""
        return dataclasses.replace(self, towers=jnp.arange(2), part=0, parts=1)


def dropout(x: Array, stream: DropoutStream | None, *, layer: int, rate: float, inverted: bool) -> Array:
    """Dropout of x (b, t * units) with probability `rate` (paper section 4.2).

    In training (`stream` given) units are zeroed and, where `inverted`, the others divided by 1 - rate. In testing
    (`stream` None) every unit is multiplied by 1 - rate, unless `inverted`. Both give testing the expectation of
    training; the paper and the released code are not inverted.
    """
    if rate == 0:
        return x
    keep = 1 - rate
    if stream is None:
        return x if inverted else x * jnp.asarray(keep, x.dtype)
    key = jax.random.fold_in(stream.key, layer)
    units = x.shape[1] * stream.parts // stream.towers.size

    def mask(row: Array, tower: Array) -> Array:
        # A float32 probability, so that the masks are the same in every precision.
        unit_key = jax.random.fold_in(jax.random.fold_in(key, row), tower)
        return jax.random.bernoulli(unit_key, jnp.float32(keep), (units,))

    kept = jax.vmap(lambda row: jax.vmap(lambda tower: mask(row, tower))(stream.towers))(stream.rows)
    kept = kept.reshape(len(x), -1)
    if stream.parts > 1:
        kept = jax.lax.dynamic_slice_in_dim(kept, stream.part * x.shape[1], x.shape[1], axis=1)
    scale = 1 / keep if inverted else 1.0
    return jnp.where(kept, x * jnp.asarray(scale, x.dtype), jnp.zeros((), x.dtype))
