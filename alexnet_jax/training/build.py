"""Builds a run's parts from its settings, in one place: network, mesh, update rule, schedule, numbers of steps."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from alexnet_jax.model.ablations import TRAINING_ONLY
from alexnet_jax.model.network import NetworkName
from alexnet_jax.model.spec import Variant
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.config import ONE_WEIRD_TRICK, Config
from alexnet_jax.training.config_rules import MAX_STEPS
from alexnet_jax.training.optimizer import lars, make_norms, paper_sgd
from alexnet_jax.training.schedule import LayerLRMultiplier, Schedule, fixed_drops, on_plateau, polynomial
from alexnet_jax.training.state import TrainState, abstract_state, create_state, replace_layers
from alexnet_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A training run: its settings and all that follows from them and from the size of the dataset.

    Attributes:
      variant: the network at its width, with the augmentation that the settings ask for.
      num_classes: outputs of fc8.
      examples: images of the training split.
      steps: updates of the whole run.
      drop_steps: after how many steps the rate drops, of schedule 'steps'; MAX_STEPS for a step that no run reaches.
      lr_multipliers: the layers whose learning rate changes late in the run.
      warmup_steps: steps, from the first, in which the rate grows.
      lighting_steps: steps, from the first, in which lighting is added.
      dtype: of activations and products; None: that of the parameters, float32.
      evaluate_every, checkpoint_every: steps between validations and between checkpoints, at least 1.
      keep_every: steps between checkpoints that stay for good; 0: none.
    """

    config: Config
    variant: Variant
    mesh: Mesh
    num_classes: int
    examples: int
    steps: int
    optimizer: optax.GradientTransformationExtraArgs
    schedule: Schedule
    drop_steps: tuple[int, ...]
    lr_multipliers: tuple[LayerLRMultiplier, ...]
    warmup_steps: int
    lighting_steps: int
    dtype: DTypeLike | None
    evaluate_every: int
    checkpoint_every: int
    keep_every: int

    @property
    def rate_factors(self) -> dict[str, float]:
        """{layer: multiple of the rate}, where that is not 1; 0 of a frozen layer."""
        return dict(self.config.rate_factors) | dict.fromkeys(self.config.frozen, 0.0)

    def make_train_step(self) -> Any:
        """Makes the jitted training step, (state, batch) -> (state, metrics); see training.step."""
        return make_train_step(
            self.variant,
            self.optimizer,
            self.schedule,
            self.mesh,
            num_classes=self.num_classes,
            seed=self.config.seed,
            dtype=self.dtype,
            clip_norm=self.config.clip_norm,
            lr_multipliers=self.lr_multipliers,
            warmup_steps=self.warmup_steps,
            frozen_layers=self.config.frozen,
            accumulate=self.config.accumulate,
        )

    def is_permanent(self, step: int) -> bool:
        """Tells whether the checkpoint after `step` stays for good."""
        return self.keep_every > 0 and step % self.keep_every == 0

    def get_due(self, step: int) -> dict[str, bool]:
        """Tells whether a test and a checkpoint follow `step`."""
        last = step == self.steps
        at_save = step % self.checkpoint_every == 0 or self.is_permanent(step)
        return {'at_test': step % self.evaluate_every == 0 or last, 'at_save': at_save or last}

    def create_state(self, mean_image: np.ndarray, layers: Mapping[str, Any] = MappingProxyType({})) -> TrainState:
        """Creates the state before the first update.

        Args:
          mean_image: float32 (mean_size, mean_size, 3), 0..255.
          layers: {layer: {'kernel', 'bias'}}, host arrays in place of those layers' initial weights.
        """
        options: dict[str, Any] = {'num_classes': self.num_classes, 'frozen_layers': self.config.frozen}
        seed = self.config.seed
        state = create_state(self.variant, self.optimizer, self.mesh, mean_image=mean_image, seed=seed, **options)
        return replace_layers(state, self.mesh, layers)

    def abstract_state(self) -> TrainState:
        """Gives the state's shapes, dtypes and shardings as jax.ShapeDtypeStruct, without computing it."""
        options: dict[str, Any] = {'num_classes': self.num_classes, 'frozen_layers': self.config.frozen}
        return abstract_state(self.variant, self.optimizer, self.mesh, **options)


def build_run(config: Config, *, num_classes: int, examples: int, mesh: Mesh | None = None) -> Run:
    """Builds the run of `config` on a dataset of `num_classes` classes and `examples` training images.

    `mesh` None stands for `config.mesh` of this machine's devices.

    Raises:
      InputError: the devices are not here, or there are more steps than can be counted.
    """
    steps, variant = config.get_total_steps(examples), make_variant(config)
    rate, factor = config.initial_learning_rate, config.drop_factor
    drops = tuple(min(config.count_updates(epoch, examples), MAX_STEPS) for epoch in config.drop_epochs)
    per_epoch = max(1, math.ceil(examples / config.batch_size))
    mesh = make_config_mesh(config) if mesh is None else mesh
    schedule = fixed_drops(rate, factor=factor, at_steps=drops)
    if config.schedule == 'plateau':
        schedule = on_plateau(rate, factor=factor)
    elif config.schedule == 'polynomial':
        schedule = polynomial(rate, power=config.schedule_power, steps=steps)
    return Run(
        config=config,
        variant=variant,
        mesh=mesh,
        num_classes=num_classes,
        examples=examples,
        steps=steps,
        optimizer=make_optimizer(config, mesh),
        schedule=schedule,
        drop_steps=drops,
        lr_multipliers=tuple(
            LayerLRMultiplier(change.layer, round(change.after * steps), change.factor)
            for change in variant.lr_multipliers
        ),
        warmup_steps=config.count_updates(config.warmup_epochs, examples) if config.warmup_epochs else 0,
        lighting_steps=round(variant.lighting.until * steps),
        dtype=get_model_dtype(config.precision),
        evaluate_every=config.evaluate_every or per_epoch,
        checkpoint_every=config.checkpoint_every or per_epoch,
        keep_every=config.keep_every_epochs * per_epoch,
    )


def make_variant(config: Config) -> Variant:
    """Makes the network of a config, at its width, with the augmentation that the config asks for."""
    without = config.without if config.lighting else (*config.without, 'lighting')
    variant = NetworkName(config.variant, config.width, without, config.activation).build()
    changes = {key: getattr(config, key) for key in ('images_per_crop', 'crops', 'mean_at')}
    return dataclasses.replace(variant, **{key: value for key, value in changes.items() if value is not None})


def get_network_name(config: Config) -> NetworkName:
    """Gets the name of a config's network, whatever its training leaves out besides."""
    without = tuple(sorted({*config.without} - TRAINING_ONLY))
    return NetworkName(config.variant, config.width, without, config.activation)


def make_config_mesh(config: Config) -> Mesh:
    """Makes the mesh of a config on the devices that are here; `InputError` where there are too few."""
    return make_mesh(*config.mesh, one_weird_trick=config.parallelism == ONE_WEIRD_TRICK)


def get_model_dtype(precision: str) -> DTypeLike | None:
    """Gets the model's dtype for a config's precision: None, that of the parameters, for 'float32'."""
    return {'float32': None, 'bfloat16': jnp.bfloat16}[precision]


def make_optimizer(config: Config, mesh: Mesh) -> optax.GradientTransformationExtraArgs:
    """Makes the update rule of a config: LARS where it has a trust coefficient, otherwise the paper's."""
    variant = NETWORKS[config.variant]
    options: dict[str, Any] = {
        'momentum': config.momentum,
        'weight_decay': config.weight_decay,
        'weight_decay_multipliers': variant.weight_decay_multipliers,
        'rate_factors': dict(config.rate_factors),
    }
    if config.trust_coefficient is None:
        return paper_sgd(bias_rate=variant.bias_rate, **options)
    return lars(trust_coefficient=config.trust_coefficient, norms=make_norms(mesh), **options)


def describe_schedule(run: Run) -> str:
    """Says in one line how long a run is and what its learning rate will do."""
    config = run.config
    epochs = run.steps * config.batch_size / run.examples
    size = f'{run.steps} steps of {config.batch_size} images ({epochs:.3g} epochs)'
    if config.schedule == 'plateau':
        tests = '1 test brings' if config.patience == 1 else f'{config.patience} tests in a row bring'
        times = 'once' if config.max_drops == 1 else f'{config.max_drops} times'
        when = f'when {tests} no lower error, at most {times}' if config.max_drops else ''
    elif config.schedule == 'polynomial':
        when = ''
    else:
        drops = [str(step) for step in run.drop_steps if step < run.steps]
        when = f'after step{"s" if len(drops) > 1 else ""} {", ".join(drops)}' if drops else ''
    drop = f', times {config.drop_factor:.3g} {when}' if when else ' throughout'
    if config.schedule == 'polynomial':
        drop = f', times (the part of the steps that is left) ** {config.schedule_power:g}'
    changes = [f'LARS, trust {config.trust_coefficient:g}'] if config.trust_coefficient is not None else []
    changes += [f'{layer} times {factor:g}' for layer, factor in config.rate_factors]
    changes += [f'{", ".join(config.frozen)} frozen'] if config.frozen else []
    changes += [f'grows over the first {run.warmup_steps} steps'] if run.warmup_steps else []
    return '; '.join([f'{size}: rate {config.initial_learning_rate:.3g}{drop}', *changes])
