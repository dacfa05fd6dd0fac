"""One training step: pure, jitted once, the two towers explicit.

`shard_map` runs `device_loss` on every device of the mesh with its share of the parameters and of the batch. The
update is elementwise, so it needs no word between devices and stays outside; but for the norms that LARS wants.
"""

import dataclasses
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from alexnet_jax.data.augment import cut_mean, mirror, normalise
from alexnet_jax.model import ops, ops_cpu, ops_gpu
from alexnet_jax.model.alexnet import FACTORS, INTERMEDIATES, AlexNet
from alexnet_jax.model.ops import DropoutStream
from alexnet_jax.model.spec import Variant
from alexnet_jax.sharding.backend import compiler_options, get_platform
from alexnet_jax.sharding.collectives import (
    clip_by_norm,
    copy_to_replicas,
    copy_to_towers,
    hidden_units,
    make_combine,
    make_exchange,
    mean_over_batch,
)
from alexnet_jax.sharding.mesh import MODEL, REPLICATED, TOWER, batch_spec, local_towers, parameter_specs
from alexnet_jax.training.accumulation import (
    join_kernels,
    list_deferred,
    make_factors,
    multiply_factors,
    split_batch,
    split_kernels,
)
from alexnet_jax.training.schedule import LayerLRMultiplier, Plateau, Schedule, get_lr_multipliers
from alexnet_jax.training.state import TrainState, frozen, select_learning


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One global batch.

    Attributes:
      images: uint8 (b, input_size, input_size, 3).
      labels: int32 (b,), 0 <= label < classes.
      lighting: float32 (b, 3), added to each image's pixels, 0..255 units per RGB channel; three zeros for none.
      places: int32 (b, 3), each crop's top, left and whether it is to be mirrored; None: the crops are as they are to
        be read.
    """

    images: Array
    labels: Array
    lighting: Array
    places: Array | None = None


def find_operations(mesh: Mesh) -> ModuleType:
    """Finds the forms of the operations that suit the hardware of `mesh`: `ops` where it has none of its own."""
    return {'cpu': ops_cpu, 'gpu': ops_gpu}.get(get_platform(mesh), ops)


def make_model(mesh: Mesh, variant: Variant, *, num_classes: int, dtype: DTypeLike | None = None) -> AlexNet:
    """Makes one device's share of the network on `mesh`, to be applied inside shard_map."""
    return AlexNet(
        variant,
        num_classes,
        local_towers=local_towers(mesh),
        dense_devices=mesh.shape.get(MODEL, mesh.shape.get(TOWER, 1)),
        exchange=make_exchange(mesh),
        combine=make_combine(mesh),
        operations=find_operations(mesh),
        dtype=dtype,
    )


def make_input(variant: Variant, batch: Batch, mean_image: Array, *, lit: bool = True) -> Array:
    """Makes the network's input of a batch, (b, size, size, 3): mirrored, less its mean, with its lighting if `lit`."""
    mean = cut_mean(mean_image, batch.places, size=variant.input_size)
    lighting = batch.lighting if lit else None
    images = mirror(batch.images, batch.places)
    return normalise(images, mean, lighting=lighting, divisor=variant.lighting.divisor, std=variant.pixel_std)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Returns -log softmax(logits)[label] of each row, (b, classes), (b,) -> (b,), in nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def score_top_k(scores: Any, labels: Any, right: Any, k: int) -> Any:
    """Computes how far the right class of each row is among the k best: float (b,), 1 within them, 0 outside.

    Classes of equal score share the places that are left for them: 1/n of n in the first place (CHM
    src/layer_kernels.cu:108-117). NaN counts as wrong. Of NumPy's arrays or JAX's.

    Args:
      scores: float (b, classes), logits or probabilities.
      labels: int (b,), the right classes.
      right: float (b,), their scores.
      k: how many are best.
    """
    own = np.arange(scores.shape[1], dtype=labels.dtype) == labels[:, None]
    better = (~(scores <= right[:, None]) & ~own).sum(axis=1)
    equal = ((scores == right[:, None]) | own).sum(axis=1)
    return ((k - better) / equal).clip(0, 1)


def make_gradients(
    variant: Variant,
    mesh: Mesh,
    *,
    num_classes: int,
    dtype: DTypeLike | None = None,
    clip_norm: float | None = None,
    frozen_layers: Collection[str] = (),
    accumulate: int = 1,
    model: AlexNet | None = None,
    measure: Callable[[dict[str, Array]], dict[str, Array]] | None = None,
) -> Callable[..., Any]:
    """Makes (params, batch, mean_image, key) -> ((loss, top-1 error), gradients of params), over the whole mesh.

    Of `frozen_layers` there are none: they are no part of what is differentiated, so nothing is computed or kept for it
    in them, nor in what leads to them alone.

    Both numbers are means over the global batch, 0-d and equal on every device. `dtype` is the model's: gradients come
    in that of the parameters, and are averaged in it. With `clip_norm`, gradients whose norm over all layers is larger
    are scaled down to it, and that norm is a third number. Each device goes through its images in `accumulate` parts,
    one after the other, and adds up their gradients: the same mean, with the memory of one part. `model` replaces that
    of `make_model`: alexnet_jax/doctor gives one that is looked into. `measure`, of a batch at once, gets what each
    stage made (model.alexnet.list_stages), of the images and units that a device has, and what it returns, equal on all
    devices, is one more of these numbers.
    """
    model = model or make_model(mesh, variant, num_classes=num_classes, dtype=dtype)
    first = next((conv.name for conv in variant.convs if conv.name not in frozen_layers), None)  # its gradient is last

    def device_gradients(params: Any, batch: Batch, mean_image: Array, key: Array) -> Any:
        images = len(batch.labels)

        def device_loss(
            layers: Any, factors: Any, part: Batch, stream: DropoutStream
        ) -> tuple[Array, tuple[Array, Any]]:
            variables = {'params': fixed | join_kernels(kernels, layers), FACTORS: factors}
            pixels, stages = make_input(variant, part, mean_image), {}
            if measure is None:
                logits = model.apply(variables, pixels, stream)
            else:
                logits, sown = model.apply(variables, pixels, stream, mutable=[INTERMEDIATES])
                stages = sown[INTERMEDIATES]
            loss = cross_entropy(logits, part.labels).sum() / images
            right = jnp.take_along_axis(logits, part.labels[:, None], axis=1)[:, 0]
            error = 1 / accumulate - score_top_k(logits, part.labels, right, 1).sum(dtype=loss.dtype) / images
            # The one mean over the batch, inside what is differentiated: gradients come out averaged, and nothing
            # is left to be reduced by hand.
            loss, error = mean_over_batch(jnp.stack([loss, error]), mesh)
            return loss, (error, stages)

        fixed = copy_to_replicas({layer: params[layer] for layer in params if layer in frozen_layers}, mesh)
        # Gradients of the copies: the parts' are added up on each device, and then summed over the replicas, once.
        learning, sum_replicas = jax.vjp(lambda p: copy_to_replicas(p, mesh), select_learning(params, frozen_layers))
        kernels, layers = split_kernels(learning, list_deferred(variant, learning) if accumulate > 1 else ())
        batch = dataclasses.replace(batch, images=copy_to_towers(batch.images, mesh))
        total: Any = None
        factors = []
        for index, part in enumerate(split_batch(batch, accumulate)):
            stream = DropoutStream(key, *hidden_units(images, mesh, part=index, parts=accumulate))
            if total and first:  # the memory that a part needs until then, the next can have
                waited, _ = lax.optimization_barrier((part.images, total[1][first]['kernel']))
                part = dataclasses.replace(part, images=waited)
            empty = make_factors(kernels, len(stream.rows), mesh, dtype=dtype)
            found, (grads, pairs) = jax.value_and_grad(device_loss, (0, 1), has_aux=True)(layers, empty, part, stream)
            total = jax.tree.map(jnp.add, total, (found, grads)) if total else (found, grads)
            factors.append(pairs)
        (loss, (error, stages)), grads = total
        (grads,) = sum_replicas(join_kernels(multiply_factors(factors, like=kernels), grads))
        metrics: tuple[Any, ...] = (loss, error)
        if clip_norm is not None:
            grads, norm = clip_by_norm(grads, clip_norm, mesh)
            metrics += (norm,)
        return metrics if measure is None else (*metrics, measure(stages)), grads

    def gradients(params: Any, batch: Batch, mean_image: Array, key: Array) -> Any:
        specs = parameter_specs(mesh, params)
        given = (specs, batch_spec(mesh), REPLICATED, REPLICATED)
        numbers = 2 + (clip_norm is not None) + (measure is not None)
        found = ((REPLICATED,) * numbers, select_learning(specs, frozen_layers))
        sharded = jax.shard_map(device_gradients, mesh=mesh, in_specs=given, out_specs=found)
        return sharded(params, batch, mean_image, key)

    return gradients


def rates_at(
    step: Array, plateau: Plateau, *, schedule: Schedule, variant: Variant, warmup_steps: int = 0
) -> dict[str, Array]:
    """Returns the rates that `paper_sgd` wants at `step`: those of a schedule, and biases' where they never drop.

    In the first `warmup_steps` both grow from one part in `warmup_steps` on, by as much each step.
    """
    rates = {'learning_rate': schedule(step, plateau)}
    if not variant.bias_drops:
        rates['bias_learning_rate'] = schedule(jnp.zeros_like(step), Plateau.start())
    if not warmup_steps:
        return rates
    part = jnp.minimum(1.0, (step + 1).astype(jnp.float32) / warmup_steps)
    return {name: rate * part for name, rate in rates.items()}


def apply_gradients(
    state: TrainState, grads: Any, optimizer: optax.GradientTransformationExtraArgs, **rates: Any
) -> tuple[TrainState, Any]:
    """Makes one update of the layers that `grads` has; returns the state after it and what was added to them."""
    learning = {layer: state.params[layer] for layer in grads}
    updates, opt_state = optimizer.update(grads, state.opt_state, learning, **rates)
    params = state.params | optax.apply_updates(learning, updates)
    return dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state), updates


def make_train_step(
    variant: Variant,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: Schedule,
    mesh: Mesh,
    *,
    num_classes: int,
    seed: int,
    dtype: DTypeLike | None = None,
    clip_norm: float | None = None,
    lr_multipliers: tuple[LayerLRMultiplier, ...] = (),
    warmup_steps: int = 0,
    frozen_layers: Collection[str] = (),
    accumulate: int = 1,
) -> Any:
    """Makes train_step(state: TrainState, batch: Batch) -> (state, metrics), a jax.jit function, `state` donated.

    A third argument, an int32 scalar on the mesh, replaces `seed`: the one compiled program then serves runs of all
    seeds, where without it each seed is a constant in a program of its own.

    The metrics are 0-d device arrays of this batch before the update: 'loss' (nats), 'top1_error' (0..1),
    'learning_rate'; with `clip_norm` also 'gradient_norm', before it was clipped. A non-finite loss or norm freezes the
    state as it was before that batch: the host reads them some steps late, and the steps that it has sent off by then
    change nothing (state.frozen). `lr_multipliers` are the layers whose learning rate changes late in the run,
    `frozen_layers` those that never learn, of whose momenta the state has none. `accumulate` is as in `make_gradients`.
    """
    options: dict[str, Any] = {'num_classes': num_classes, 'dtype': dtype, 'clip_norm': clip_norm}
    gradients = make_gradients(variant, mesh, frozen_layers=frozen_layers, accumulate=accumulate, **options)
    timing: dict[str, Any] = {'schedule': schedule, 'variant': variant, 'warmup_steps': warmup_steps}

    def train_step(state: TrainState, batch: Batch, seed: Array | int = seed) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, error, *norm), grads = gradients(state.params, batch, state.mean_image, key)
        rates = rates_at(state.step, state.plateau, **timing)

        def updated(state: TrainState) -> TrainState:
            given = rates | {'lr_multipliers': get_lr_multipliers(lr_multipliers, state.step)}
            return apply_gradients(state, grads, optimizer, **given)[0]

        metrics = {'loss': loss, 'top1_error': error, 'learning_rate': rates['learning_rate']}
        healthy = jnp.isfinite(loss) & (state.step >= 0)  # the loss is the same on all devices: so is this
        if norm:
            metrics['gradient_norm'] = norm[0]
            healthy &= jnp.isfinite(norm[0])  # and so is the norm
        # A branch, because choosing element by element would take as long again as the update.
        return lax.cond(healthy, updated, frozen, state), metrics

    return jax.jit(train_step, donate_argnums=0, compiler_options=compiler_options(mesh))
