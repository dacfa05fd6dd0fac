"""The update rules, from Optax parts: the paper's (section 5), and LARS, for batches of thousands of images.

    v <- 0.9 v - 0.0005 * rate * w - rate * gradient          w <- w + v

The learning rate is inside the momentum buffer: after it drops, old steps still carry the old rate. `optax.sgd` (and
PyTorch) keep it outside, and rescale the whole momentum at once; the two agree only while the rate is constant.

LARS (You, Gitman, Ginsburg, arXiv 1708.03888, algorithm 1) has the same momentum, and for each array a rate of its own:

    local <- trust * |w| / (|gradient| + 0.0005 * |w|)          v <- 0.9 v - rate * local * (gradient + 0.0005 w)
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.sharding.collectives import norms_over_towers
from alexnet_jax.sharding.mesh import REPLICATED, parameter_specs


def paper_sgd(
    *,
    momentum: float,
    weight_decay: float,
    bias_rate: float,
    weight_decay_multipliers: Mapping[str, float] = MappingProxyType({}),
    rate_factors: Mapping[str, float] = MappingProxyType({}),
) -> optax.GradientTransformationExtraArgs:
    """Makes the update rule; call `update(gradients, state, parameters, learning_rate=..., lr_multipliers={})`.

    With `local_rates=...`, a tree like the gradients of 0-d arrays, each array's rate is multiplied by its own.

    With `bias_learning_rate=...` too, that is what biases' rates are a multiple of, whatever their layer's factor: CHM
    layers/layer-params-145.cfg has drops of epsW alone, and epsB is 0.02 in the end.

    `lr_multipliers`, {layer: 0-d array}, multiply the rate of some layers. A layer whose multiplier is 0 is not moved
    by its old momentum either: cuda-convnet leaves out its update (CHM src/weights.cu, Weights::update).

    Args:
      momentum: 0.9 in the paper.
      weight_decay: 5e-4 in the paper, times the learning rate; on kernels only, as in CHM layers/layer-params-145.cfg.
      bias_rate: learning rate of biases in multiples of the kernels' (paper 1, CHM layers/layer-params-145.cfg 2).
      weight_decay_multipliers: {layer: multiple of `weight_decay`}, of those where it is not 1.
      rate_factors: {layer: multiple of the rates of its kernel and its biases, throughout}, of those where it is not 1.
    """

    def add_decayed(layer: str, name: str, u: Array, weight: Array, **_: Any) -> Array:
        decay = weight_decay * weight_decay_multipliers.get(layer, 1.0)
        return u + decay * weight if decay else u

    return optax.chain(
        optax.masked(_transform_leaves(add_decayed), lambda tree: _are_named(tree, 'kernel')),
        optax.masked(optax.scale(bias_rate), lambda tree: _are_named(tree, 'bias')),
        _transform_leaves(functools.partial(_scale_by_rate, rate_factors=rate_factors)),
        optax.trace(momentum),
        _transform_leaves(_hold_frozen),
    )


def lars(
    *,
    trust_coefficient: float,
    momentum: float,
    weight_decay: float,
    norms: Callable[[Any], Any],
    weight_decay_multipliers: Mapping[str, float] = MappingProxyType({}),
    rate_factors: Mapping[str, float] = MappingProxyType({}),
) -> optax.GradientTransformationExtraArgs:
    """Makes LARS; its `update` takes what that of `paper_sgd` does, and its state is the same.

    As its authors' program has it (NVIDIA/caffe 448ad5b8, src/caffe/solvers/sgd_solver.cpp): the denominator is a sum
    of two norms (`optax.lars` has the norm of gradient and decay together); biases have a local rate as any other
    array, in place of the multiple that networks give them, follow the schedule, and are not decayed (`decay_mult: 0`),
    though the denominator is as if they were; and where the weights or the gradient are all 0, `local` is 1. So biases
    that begin at 0 need the warm-up: their first step is not scaled.

    Args:
      trust_coefficient: 0.001 in the paper.
      momentum, weight_decay, weight_decay_multipliers, rate_factors: as in `paper_sgd`.
      norms: gives the norms of a tree's leaves, 0-d arrays; of whole arrays, however they are sharded (`make_norms`).
    """
    rule = paper_sgd(
        momentum=momentum,
        weight_decay=weight_decay,
        bias_rate=1.0,
        weight_decay_multipliers=weight_decay_multipliers,
        rate_factors=rate_factors,
    )

    def local_rate(path: Any, weight: Array, gradient: Array) -> Array:
        decay = weight_decay * weight_decay_multipliers.get(path[-2].key, 1.0)
        ratio = trust_coefficient * weight / (gradient + decay * weight)
        return jnp.where((weight > 0) & (gradient > 0), ratio, 1)

    def update(
        gradients: Any, state: Any, params: Any, *, bias_learning_rate: Array | None = None, **given: Any
    ) -> tuple[Any, Any]:
        del bias_learning_rate  # which is the multiple's
        weights, slopes = norms((params, gradients))
        local_rates = jax.tree_util.tree_map_with_path(local_rate, weights, slopes)
        return rule.update(gradients, state, params, local_rates=local_rates, **given)

    return optax.GradientTransformationExtraArgs(rule.init, update)


def make_norms(mesh: Mesh) -> Callable[[Any], Any]:
    """Makes what `lars` needs on `mesh`: (a tree of arrays by layer) -> their norms, with one message for all."""

    def norms(tree: Any) -> Any:
        specs = parameter_specs(mesh, tree)
        device_norms = functools.partial(norms_over_towers, mesh=mesh)
        return jax.shard_map(device_norms, mesh=mesh, in_specs=(specs,), out_specs=REPLICATED)(tree)

    return norms


def _scale_by_rate(
    layer: str,
    name: str,
    u: Array,
    _: Array,
    *,
    learning_rate: Array,
    rate_factors: Mapping[str, float],
    bias_learning_rate: Array | None = None,
    lr_multipliers: Mapping[str, Array] = MappingProxyType({}),
    local_rates: Mapping[str, Mapping[str, Array]] | None = None,
) -> Array:
    rate = learning_rate * lr_multipliers[layer] if layer in lr_multipliers else learning_rate
    if name == 'bias' and bias_learning_rate is not None:
        rate = bias_learning_rate
    if layer in rate_factors:
        rate = rate * rate_factors[layer]
    if local_rates is not None:
        rate = rate * local_rates[layer][name]
    return -rate.astype(u.dtype) * u


def _hold_frozen(
    layer: str, name: str, u: Array, _: Array, *, lr_multipliers: Mapping[str, Array] = MappingProxyType({}), **__: Any
) -> Array:
    return jnp.where(lr_multipliers[layer] > 0, u, 0) if layer in lr_multipliers else u


def _transform_leaves(change: Callable[..., Array]) -> optax.GradientTransformationExtraArgs:
    """Makes a transformation that applies change(layer, name, leaf, weight, **given) to every leaf.

    `given` are further arguments of `update`, the rates: validation decides them, not only the step.
    """

    def update(updates: Any, state: optax.EmptyState, params: Any, **given: Any) -> tuple[Any, optax.EmptyState]:
        def changed(path: Any, u: Array, weight: Array) -> Array:
            return change(path[-2].key, path[-1].key, u, weight, **given)

        return jax.tree_util.tree_map_with_path(changed, updates, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _are_named(tree: Any, name: str) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == name, tree)
