"""Looks into a step as it is made: how large gradients and updates are, layer by layer, and which units are lost.

A program of its own, on the state and the batch of the step that follows it: training's own program is the same
whether it runs or not. It computes that step's gradients once more, with the same units dropped, and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alexnet_jax.model.alexnet import find_units
from alexnet_jax.model.ops import SATURATED, relative_slope
from alexnet_jax.model.spec import Relu
from alexnet_jax.sharding.backend import compiler_options
from alexnet_jax.sharding.collectives import mean_over_devices, mean_over_units, norm_over_towers, sum_over_images
from alexnet_jax.sharding.mesh import REPLICATED, parameter_specs
from alexnet_jax.training.build import Run
from alexnet_jax.training.schedule import get_lr_multipliers
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import Batch, apply_gradients, make_gradients, rates_at


def make_layer_probe(run: Run) -> Any:
    """Makes (state, batch) -> {'LAYER/WHAT': 0-d array} of the step that follows, a jax.jit function.

    'gradient' is the norm of the kernel's gradient, averaged over the batch and clipped where the run clips; 'update'
    that of what the step adds to the kernel, as a fraction of the kernel's own. Of what follows the layer's units,
    'saturated' is the share of all values at which the slope of tanh or sigmoid is below SATURATED of its largest, and
    'dead' the share of ReLUs, a map or a unit each, that give 0 for every image of the batch, at every place. A frozen
    layer has a gradient and an update of 0.
    """
    mesh, variant = run.mesh, run.variant
    units = find_units(variant)

    def measure_units(stages: dict[str, Array]) -> dict[str, Array]:
        found = {}
        for layer, (stage, activation) in units.items():
            dense = layer in {own.name for own in variant.dense}
            slopes = relative_slope(activation, stages[stage])
            if isinstance(activation, Relu):
                alive = sum_over_images(slopes.max(axis=tuple(range(slopes.ndim - 1))), mesh, dense=dense)
                found[f'{layer}/dead'] = mean_over_units((alive == 0).mean(dtype=jnp.float32), mesh, dense=dense)
            else:
                lost = (slopes < SATURATED).mean(dtype=jnp.float32)
                found[f'{layer}/saturated'] = mean_over_devices(lost, mesh)
        return found

    gradients = make_gradients(
        variant,
        mesh,
        num_classes=run.num_classes,
        dtype=run.dtype,
        clip_norm=run.config.clip_norm,
        frozen_layers=run.config.frozen,
        measure=measure_units,
    )

    def measure_norms(tree: Any) -> dict[str, Array]:
        kernels = {layer: {'kernel': leaves['kernel']} for layer, leaves in tree.items()}

        def device_norms(kernels: Any) -> dict[str, Array]:
            specs = parameter_specs(mesh, kernels)
            return {
                layer: norm_over_towers(leaves['kernel'], specs[layer]['kernel'], mesh)
                for layer, leaves in kernels.items()
            }

        given = parameter_specs(mesh, kernels)
        return jax.shard_map(device_norms, mesh=mesh, in_specs=(given,), out_specs=REPLICATED)(kernels)

    def probe(state: TrainState, batch: Batch) -> dict[str, Array]:
        key = jax.random.fold_in(jax.random.key(run.config.seed), state.step)
        (*_, measured), grads = gradients(state.params, batch, state.mean_image, key)
        timing: dict[str, Any] = {'schedule': run.schedule, 'variant': variant, 'warmup_steps': run.warmup_steps}
        rates: dict[str, Any] = rates_at(state.step, state.plateau, **timing)
        rates |= {'lr_multipliers': get_lr_multipliers(run.lr_multipliers, state.step)}
        _, updates = apply_gradients(state, grads, run.optimizer, **rates)
        weight, gradient, update = measure_norms(state.params), measure_norms(grads), measure_norms(updates)
        found: dict[str, Array] = {}
        for layer in (own.name for own in variant.layers):
            zero = jnp.zeros_like(weight[layer])
            found[f'{layer}/gradient'] = gradient.get(layer, zero)
            found[f'{layer}/update'] = update.get(layer, zero) / weight[layer]
        return found | measured

    return jax.jit(probe, compiler_options=compiler_options(mesh))


def compile_layer_probe(
    run: Run, state: TrainState, batch: Batch
) -> Callable[[int, TrainState, Batch], dict[str, Array]]:
    """Compiles what is called before each step with its number, the state before it and its batch.

    In the first step and every `config.probe_every` of them it gives the numbers of `make_layer_probe`, in others, and
    where that is 0, nothing, and without it nothing is compiled.
    """
    every = run.config.probe_every
    if not every:
        return lambda step, state, batch: {}
    program = make_layer_probe(run).lower(state, batch).compile()

    def probe(step: int, state: TrainState, batch: Batch) -> dict[str, Array]:
        return program(state, batch) if step == 1 or step % every == 0 else {}

    return probe
