"""From a config to the parts that it names: network, augmentation, update rule, schedule."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from alexnet_jax.model.catalogue import NETWORKS
from alexnet_jax.model.network import NetworkName
from alexnet_jax.model.variants import Variant
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training import schedule
from alexnet_jax.training.config import MOST_STEPS, ONE_WEIRD_TRICK, learning_rate_of, total_steps, updates_in
from alexnet_jax.training.optimizer import paper_sgd


def variant_of(config: ml_collections.ConfigDict) -> Variant:
    """The network of a config, at its width, with the augmentation that the config asks for."""
    without = config.without if config.lighting else (*config.without, 'lighting')
    variant = NetworkName(config.variant, config.width, tuple(without)).build()
    if config.images_per_crop is not None:
        variant = dataclasses.replace(variant, images_per_crop=config.images_per_crop)
    if config.crops is not None:
        variant = dataclasses.replace(variant, crops=config.crops)
    return variant


def mesh_of(config: ml_collections.ConfigDict) -> Mesh:
    """The mesh of a config, which is validated; `InputError` where the devices are not here."""
    return make_mesh(*config.mesh, one_weird_trick=config.parallelism == ONE_WEIRD_TRICK)


def lit_steps_of(config: ml_collections.ConfigDict, *, examples: int) -> int:
    """Steps of the run, from the first, in which lighting is added: a training split of `examples` images."""
    return round(variant_of(config).lighting.until * total_steps(config, examples))


def layer_factors_of(config: ml_collections.ConfigDict, *, examples: int) -> tuple[schedule.LayerFactor, ...]:
    """Which layers' rates change at which steps of the run: a training split of `examples` images."""
    steps = total_steps(config, examples)
    slowed = NETWORKS[config.variant].slowed
    return tuple(schedule.LayerFactor(change.layer, round(change.after * steps), change.factor) for change in slowed)


def dtype_of(config: ml_collections.ConfigDict) -> DTypeLike | None:
    """The model's dtype for a config's precision: None, that of the parameters, for 'float32'."""
    return {'float32': None, 'bfloat16': jnp.bfloat16}[config.precision]


def optimizer_of(config: ml_collections.ConfigDict) -> optax.GradientTransformationExtraArgs:
    """The update rule of a config."""
    variant = NETWORKS[config.variant]
    return paper_sgd(
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        bias_rate=variant.bias_rate,
        decays=variant.decays,
    )


def schedule_of(config: ml_collections.ConfigDict, *, examples: int) -> schedule.Schedule:
    """The learning-rate schedule of a config, for a training split of `examples` images."""
    if config.schedule == 'plateau':
        return schedule.on_plateau(learning_rate_of(config), factor=config.drop_factor)
    at_steps = drop_steps_of(config, examples=examples)
    return schedule.fixed_drops(learning_rate_of(config), factor=config.drop_factor, at_steps=at_steps)


def drop_steps_of(config: ml_collections.ConfigDict, *, examples: int) -> tuple[int, ...]:
    """After how many steps the rate drops, of schedule 'steps'; a step that no run reaches is MOST_STEPS."""
    steps = (updates_in(epoch, config, examples) for epoch in config.drop_epochs)
    return tuple(min(step, MOST_STEPS) for step in steps)


def plan_of(config: ml_collections.ConfigDict, *, examples: int) -> str:
    """One line for the person who starts a run: how long it is and what its learning rate will do."""
    steps = total_steps(config, examples)
    epochs = steps * config.batch_size / examples
    text = f'{steps} steps of {config.batch_size} images ({epochs:.3g} epochs): rate {learning_rate_of(config):.3g}'
    if config.schedule == 'plateau':
        tests = '1 test brings' if config.patience == 1 else f'{config.patience} tests in a row bring'
        times = 'once' if config.max_drops == 1 else f'{config.max_drops} times'
        when = f'when {tests} no lower error, at most {times}' if config.max_drops else ''
    else:
        drops = [str(step) for step in drop_steps_of(config, examples=examples) if step < steps]
        when = f'after step{"s" if len(drops) > 1 else ""} {", ".join(drops)}' if drops else ''
    return f'{text}, times {config.drop_factor:.3g} {when}' if when else f'{text} throughout'
