"""This project's network as it is benchmarked: its real training step, and inference as the evaluator does it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.sampling import Program
from alexnet_jax.data.augment import CROP, normalise
from alexnet_jax.model.variants import Variant, layer_sizes
from alexnet_jax.parallel.devices import prepare_backend
from alexnet_jax.parallel.mesh import REPLICATED, batch_spec, parameter_specs, place_batch
from alexnet_jax.training.config import recipe
from alexnet_jax.training.recipe import mesh_of, optimizer_of, schedule_of, variant_of
from alexnet_jax.training.state import create_state
from alexnet_jax.training.step import Batch, compiler_options, make_train_step, model_on


def programs(setting: Setting, *, towers: int) -> dict[str, Program]:
    """'train' and 'inference' of the paper's network on one device (`towers` 1) or on two, one tower each.

    The batch is on the device already: reading data is measured elsewhere. 'train' is one update and goes on from the
    one before; 'inference' is the logits of centre crops, with the parameters that training has reached.
    """
    config = recipe('imagenet2012', mesh=(1, towers))
    config.width = setting.width
    prepare_backend(config.mesh)
    mesh, variant, optimizer = mesh_of(config), variant_of(config), optimizer_of(config)
    random = np.random.default_rng(0)
    batch = place_batch(
        mesh,
        Batch(
            images=jnp.asarray(random.integers(256, size=(setting.batch, CROP, CROP, 3), dtype=np.uint8)),
            labels=jnp.asarray(random.integers(setting.classes, size=setting.batch, dtype=np.int32)),
            lighting=jnp.asarray(random.normal(size=(setting.batch, 3)), jnp.float32),
        ),
    )
    mean_image = np.full((CROP, CROP, 3), 127.5)
    state = create_state(variant, optimizer, mesh, num_classes=setting.classes, mean_image=mean_image, seed=config.seed)
    train_step = make_train_step(
        variant, optimizer, schedule_of(config, examples=1), mesh, num_classes=setting.classes, seed=config.seed
    )
    model = model_on(mesh, variant, num_classes=setting.classes)

    def device_logits(params: Any, images: Array, mean_image: Array) -> Array:
        return model.apply({'params': params}, normalise(images, mean_image))

    @jax.jit(compiler_options=compiler_options(mesh))
    def logits(params: Any, images: Array, mean_image: Array) -> Array:
        rows = batch_spec(mesh)
        specs = (parameter_specs(mesh, params), rows, REPLICATED)
        return jax.shard_map(device_logits, mesh=mesh, in_specs=specs, out_specs=rows)(params, images, mean_image)

    def train() -> None:
        nonlocal state
        state, metrics = jax.block_until_ready(train_step(state, batch))
        assert np.isfinite(metrics['loss']), 'training diverged: its speed means nothing'

    def inference() -> None:
        jax.block_until_ready(logits(state.params, batch.images, state.mean_image))

    forward, trained = flop_per_image(variant, num_classes=setting.classes)
    return {
        'train': Program(train, flop=setting.batch * trained),
        'inference': Program(inference, flop=setting.batch * forward),
    }


def flop_per_image(variant: Variant, *, num_classes: int) -> tuple[int, int]:
    """(forward, whole training step) of the convolutions and products; a multiply-accumulate counts as two.

    The backward pass is two products as large as the forward one, and only one in conv1: images need no gradient.
    """
    macs = {row.name: row.macs for row in layer_sizes(variant, num_classes=num_classes)}
    forward = 2 * sum(macs.values())
    return forward, 3 * forward - 2 * macs[variant.convs[0].name]
