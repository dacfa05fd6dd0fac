"""Learning-rate schedules: fixed drops, the paper's own rule, which watches the validation error, and a polynomial.

The first two only ever divide: the rate is `learning_rate * factor ** drops`. The rule's state is part of the training
state, so it is saved and restored with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plateau:
    """The memory of the paper's rule.

    Attributes:
      best_error: float32 scalar, the lowest validation error so far (1 before the first).
      stale: int32 scalar, evaluations since it last improved.
      drops: int32 scalar, how often the rate was divided.
    """

    best_error: Array
    stale: Array
    drops: Array

    @classmethod
    def start(cls) -> Plateau:
        """Returns the memory before the first evaluation."""
        return cls(jnp.ones((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def update_plateau(plateau: Plateau, error: float, *, patience: int, max_drops: int) -> Plateau:
    """Applies the rule after an evaluation: divide when the error has not improved for `patience` evaluations.

    Paper section 5: "divide the learning rate by 10 when the validation error rate stopped improving with the current
    learning rate", three times before the end.
    """
    best = min(float(jnp.float32(error)), float(plateau.best_error))  # both as float32: 0.8 is not better than 0.8
    stale = 0 if best < float(plateau.best_error) else int(plateau.stale) + 1
    drops = int(plateau.drops)
    if stale >= patience and drops < max_drops:
        stale, drops = 0, drops + 1
    return Plateau(jnp.float32(best), jnp.int32(stale), jnp.int32(drops))


Schedule = Callable[[Array, Plateau], Array]


@dataclasses.dataclass(frozen=True)
class LayerLRMultiplier:
    """From `step` on (they count from 0) the rate of `layer` is multiplied by `factor`."""

    layer: str
    step: int
    factor: float


def get_lr_multipliers(changes: tuple[LayerLRMultiplier, ...], step: Array) -> dict[str, Array]:
    """Returns {layer: float32 0-d} at `step`: of a layer's `changes`, in order of time, the latest; 1 before them."""
    multipliers: dict[str, Array] = {}
    for change in changes:
        before = multipliers.get(change.layer, jnp.float32(1))
        multipliers[change.layer] = jnp.where(step >= change.step, jnp.float32(change.factor), before)
    return multipliers


def fixed_drops(learning_rate: float, *, factor: float, at_steps: tuple[int, ...]) -> Schedule:
    """Makes a schedule whose rate is multiplied by `factor` from each of `at_steps` on (steps count from 0)."""

    def rate(step: Array, _: Plateau) -> Array:
        drops = jnp.sum(step >= jnp.asarray(at_steps, jnp.int32)) if at_steps else 0
        return jnp.float32(learning_rate) * jnp.float32(factor) ** drops

    return rate


def on_plateau(learning_rate: float, *, factor: float) -> Schedule:
    """Makes a schedule whose rate is multiplied by `factor` as often as `update_plateau` has decided."""
    return lambda step, plateau: jnp.float32(learning_rate) * jnp.float32(factor) ** plateau.drops


def polynomial(learning_rate: float, *, power: float, steps: int) -> Schedule:
    """Makes a schedule that falls from `learning_rate` to 0 over `steps`, as the part of them that is left ** power.

    Caffe's `poly`; 0 from `steps` on.
    """

    def rate(step: Array, _: Plateau) -> Array:
        left = jnp.maximum(steps - step, 0).astype(jnp.float32) / steps
        return jnp.float32(learning_rate) * left ** jnp.float32(power)

    return rate
