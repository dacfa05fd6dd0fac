"""The training state: all that a run is at one step, created on the devices where it will live."""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.spec import Variant
from alexnet_jax.sharding.backend import is_cpu_mesh
from alexnet_jax.sharding.mesh import abstract, parameter_specs, place, shardings
from alexnet_jax.training.schedule import Plateau

# This program runs once, and XLA:CPU's full optimisation of its random numbers takes longer than the training step's:
# a quarter of the time compiles it to code that is as fast and gives the same bits.
_CPU_OPTIONS = {'xla_backend_optimization_level': '1'}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint holds. No random key: keys are functions of the seed and the step.

    Attributes:
      step: int32 scalar, updates made so far; -n - 1 where `frozen` after n of them.
      params: {layer: {'kernel', 'bias'}}, float32.
      opt_state: Optax's state, the momenta, of the layers that learn.
      plateau: the learning-rate rule's memory.
      mean_image: float32 (mean_size, mean_size, 3), 0..255, what is subtracted from the crops (data.augment.cut_mean):
        weights mean nothing without it.
    """

    step: Array
    params: Any
    opt_state: Any
    plateau: Plateau
    mean_image: Array


def frozen(state: TrainState) -> TrainState:
    """Returns the state with its step, n, turned to -n - 1: the mark that no further batch may change it."""
    return dataclasses.replace(state, step=jnp.where(state.step < 0, state.step, -state.step - 1))


def create_state(
    variant: Variant,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    num_classes: int,
    mean_image: np.ndarray,
    seed: int,
    frozen_layers: Collection[str] = (),
) -> TrainState:
    """Creates a fresh state, each device only the share that it holds; the same numbers on every mesh."""
    create = functools.partial(_create, variant, optimizer, num_classes, frozen_layers)
    # The seed is an argument, so that the program of one seed, kept on disk, serves the others.
    given = (np.int32(seed), mean_image.astype(np.float32))
    placed = shardings(mesh, parameter_specs(mesh, jax.eval_shape(create, *given)))
    return jax.jit(create, out_shardings=placed, compiler_options=_CPU_OPTIONS if is_cpu_mesh(mesh) else {})(*given)


def replace_layers(state: TrainState, mesh: Mesh, layers: Mapping[str, Any]) -> TrainState:
    """Returns `state` with host arrays, {layer: {'kernel', 'bias'}}, in place of those layers' parameters."""
    own = dict(layers)
    return dataclasses.replace(state, params=state.params | place(mesh, own, parameter_specs(mesh, own)))


def abstract_state(
    variant: Variant,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    num_classes: int,
    frozen_layers: Collection[str] = (),
) -> TrainState:
    """Returns `create_state`'s shapes, dtypes and shardings as jax.ShapeDtypeStruct: to compile without computing."""
    mean = jax.ShapeDtypeStruct((variant.mean_size, variant.mean_size, 3), jnp.float32)
    create = functools.partial(_create, variant, optimizer, num_classes, frozen_layers)
    shapes = jax.eval_shape(create, jnp.int32(0), mean)
    return abstract(mesh, shapes, parameter_specs(mesh, shapes))


def select_learning(params: Any, frozen_layers: Collection[str]) -> Any:
    """Selects the layers that learn, of a tree {layer: ...}."""
    return {layer: leaves for layer, leaves in params.items() if layer not in frozen_layers}


def _create(
    variant: Variant,
    optimizer: optax.GradientTransformation,
    num_classes: int,
    frozen_layers: Collection[str],
    seed: Array,
    mean: Array,
) -> TrainState:
    params = init_parameters(variant, jax.random.key(seed), num_classes=num_classes)
    opt_state = optimizer.init(select_learning(params, frozen_layers))
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, Plateau.start(), mean)
