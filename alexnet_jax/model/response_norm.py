"""Local response normalisation (paper section 3.3; within a map CHM layers/layers-145.cfg, rnorm2) and its gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from alexnet_jax.model.spec import ChannelNorm, SpatialNorm

# Called as each(function, *arrays) with arrays of one shape: the function's result, computed element by element.
Elementwise = Callable[..., Array]


def apply_plainly(function: Callable[..., Array], *arrays: Array) -> Array:
    """The plain form of an `Elementwise`."""
    return function(*arrays)


@dataclasses.dataclass(frozen=True)
class Norm:
    """Local response normalisation, y = x / (k + alpha * W(x^2))^beta, W the sum over `size` places along `axes`."""

    constants: ChannelNorm | SpatialNorm
    axes: tuple[int, ...]

    def sum(self, x: Array, *, transposed: bool = False) -> Array:
        """Returns W(x), or its transpose: the sum over the windows that x's places are in. x's shape."""
        size = self.constants.size
        before = (size - 1) // 2 if transposed else size // 2
        window, padding = [1] * x.ndim, [(0, 0)] * x.ndim
        for axis in self.axes:
            window[axis], padding[axis] = size, (before, size - 1 - before)
        return lax.reduce_window(x, 0.0, lax.add, window, (1,) * x.ndim, padding)

    def base(self, sums: Array) -> Array:
        """Returns s = k + alpha * W(x^2) of the sums W(x^2), in their shape."""
        return self.constants.k + self.constants.alpha * sums

    def power(self, s: Array) -> Array:
        """Returns s^-beta; the paper's beta of 0.75 from two square roots, twice as fast as a power on CPU."""
        if self.constants.beta == 0.75:
            r = lax.rsqrt(s)
            return r * jnp.sqrt(r)
        return s**-self.constants.beta

    def __call__(self, x: Array, *, each: Elementwise = apply_plainly) -> Array:
        """Returns the normalised x, in its shape and dtype, computed in float32 at least.

        What is done element by element goes through `each`, in which a form of the hardware's says how.
        """
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        sums = self.sum(each(jnp.square, wide))
        return each(lambda x, sums: x * self.power(self.base(sums)), wide, sums).astype(x.dtype)

    def pull(
        self,
        x: Array,
        gradient: Array,
        *,
        each: Elementwise = apply_plainly,
        write: Callable[[Array], Array] = lambda term: term,
    ) -> Array:
        """Returns the gradient of x from that of y, all of x's shape and float32 at least.

        y = x p with p = s^-beta and s = k + alpha W(x^2), so dx = g p - 2 alpha beta x W'(g x p / s). `each` is as
        above; what W' sums goes through `write`, because each term is read `size` times.
        """

        def weigh(x: Array, gradient: Array, sums: Array) -> Array:
            s = self.base(sums)
            return gradient * x * self.power(s) / s

        def join(x: Array, gradient: Array, sums: Array, spread: Array) -> Array:
            factor = 2 * self.constants.alpha * self.constants.beta
            return gradient * self.power(self.base(sums)) - factor * x * spread

        sums = self.sum(each(jnp.square, x))
        return each(join, x, gradient, sums, self.sum(write(each(weigh, x, gradient, sums)), transposed=True))
