"""The paper's update rule (section 5), from Optax parts.

    v <- 0.9 v - 0.0005 * rate * w - rate * gradient          w <- w + v

The learning rate is inside the momentum buffer: after it drops, old steps still carry the old rate. `optax.sgd` (and
PyTorch) keep it outside, and rescale the whole momentum at once; the two agree only while the rate is constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array


def paper_sgd(
    *,
    momentum: float,
    weight_decay: float,
    bias_rate: float,
    weight_decay_multipliers: Mapping[str, float] = MappingProxyType({}),
) -> optax.GradientTransformationExtraArgs:
    """The update rule; call `update(gradients, state, parameters, learning_rate=..., lr_multipliers={})`.

    With `bias_learning_rate=...` too, that is what biases' rates are a multiple of, whatever their layer's factor: CHM
    layer-params-145.cfg has drops of epsW alone, and epsB is 0.02 in the end.

    `lr_multipliers`, {layer: 0-d array}, multiply the rate of some layers. A layer whose multiplier is 0 is not moved
    by its old momentum either: cuda-convnet leaves out its update (CHM weights.cu, Weights::update).

    Args:
      momentum: 0.9 in the paper.
      weight_decay: 5e-4 in the paper, times the learning rate; on kernels only (CHM layer-params-145.cfg: wcB is 0).
      bias_rate: learning rate of biases in multiples of the kernels' (paper 1, CHM layer-params-145.cfg 2).
      weight_decay_multipliers: {layer: multiple of `weight_decay`}, of those where it is not 1.
    """
    return optax.chain(
        optax.masked(_add_decayed_weights(weight_decay, weight_decay_multipliers), lambda tree: _named(tree, 'kernel')),
        optax.masked(optax.scale(bias_rate), lambda tree: _named(tree, 'bias')),
        _scale_by_given_rates(),
        optax.trace(momentum),
        _hold_frozen(),
    )


def _add_decayed_weights(weight_decay: float, multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """optax.add_decayed_weights with a decay for each layer."""

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        def decayed(path: Any, u: Array, weight: Array) -> Array:
            decay = weight_decay * multipliers.get(path[-2].key, 1.0)
            return u + decay * weight if decay else u

        return jax.tree_util.tree_map_with_path(decayed, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _scale_by_given_rates() -> optax.GradientTransformationExtraArgs:
    """Multiplies by rates that are arguments of `update`: validation decides them, not only the step."""

    def update(
        updates: Any,
        state: optax.EmptyState,
        params: Any = None,
        *,
        learning_rate: Array,
        bias_learning_rate: Array | None = None,
        lr_multipliers: Mapping[str, Array] = MappingProxyType({}),
        **extra: Any,
    ) -> tuple[Any, optax.EmptyState]:
        del params, extra

        def scaled(path: Any, u: Array) -> Array:
            layer, name = (entry.key for entry in path[-2:])
            rate = learning_rate * lr_multipliers[layer] if layer in lr_multipliers else learning_rate
            if name == 'bias' and bias_learning_rate is not None:
                rate = bias_learning_rate
            return -rate.astype(u.dtype) * u

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _hold_frozen() -> optax.GradientTransformationExtraArgs:
    """No update of layers whose factor is 0."""

    def update(
        updates: Any,
        state: optax.EmptyState,
        params: Any = None,
        *,
        lr_multipliers: Mapping[str, Array] = MappingProxyType({}),
        **extra: Any,
    ) -> tuple[Any, optax.EmptyState]:
        del params, extra

        def held(path: Any, u: Array) -> Array:
            layer = path[-2].key
            return jnp.where(lr_multipliers[layer] > 0, u, 0) if layer in lr_multipliers else u

        return jax.tree_util.tree_map_with_path(held, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _named(tree: Any, name: str) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == name, tree)
