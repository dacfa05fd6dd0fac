"""What any stage of a network makes of images: the features of the centre crop, as in testing.

The original's `--write-features` did the same (CHM shownet.py). Nothing is dropped: hidden units are multiplied by 1/2,
where a network's dropout is the original's. One process; on a mesh with towers both halves are put together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike

from alexnet_jax.data.augment import normalise
from alexnet_jax.data.dataset import DataSource
from alexnet_jax.data.pipeline import EvaluationBatches, get_crop_decoder
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.predictions import check_mesh
from alexnet_jax.evaluation.views import cut_view, get_views
from alexnet_jax.model.alexnet import INTERMEDIATES, AlexNet, get_stage_shapes, list_stages
from alexnet_jax.model.network import Network
from alexnet_jax.model.spec import Variant
from alexnet_jax.sharding.backend import compiler_options
from alexnet_jax.sharding.mesh import REPLICATED, TOWER, batch_spec, parameter_specs, place, place_batch, replicate
from alexnet_jax.training.step import make_model


def find_stage(variant: Variant, layer: str) -> str:
    """The stage that a user means: its name, or that of a layer, whose last stage it is.

    Raises:
      InputError: the network has neither.
    """
    known = list_stages(variant)
    if layer in known:
        return layer
    if own := [stage for stage in known if stage.startswith(f'{layer}/')]:
        return own[-1]
    raise InputError(f'--layer={layer}: the network {variant.name} has no such layer; --layer=help lists them')


def format_stages(network: Network) -> str:
    """All layers and their stages, with the shape of one image's features."""
    shapes = get_stage_shapes(network.variant, num_classes=len(network.classes))
    width = max(map(len, shapes))
    lines = []
    for stage, shape in shapes.items():
        layer = stage.split('/')[0]
        alias = f'  = {layer}' if find_stage(network.variant, layer) == stage else ''
        lines.append(f'{stage:<{width}}  {"x".join(map(str, shape)):>10}  {math.prod(shape):>7,}{alias}')
    return '\n'.join(lines)


def compute_stage(model: AlexNet, params: Any, crops: Array, mean_image: Array, *, stage: str) -> Array:
    """Computes a stage, (b, ...) in the model's dtype, of crops (b, size, size, 3), numeric, 0..255; traceable."""
    pixels = normalise(crops, mean_image, std=model.variant.pixel_std)
    return model.apply({'params': params}, pixels, mutable=[INTERMEDIATES])[1][INTERMEDIATES][stage]


def iter_features(
    network: Network,
    mesh: Mesh,
    records: DataSource,
    *,
    stage: str,
    batch_size: int,
    dtype: DTypeLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of all images of `records` in order: features, float32 (b, ...), and labels, int32 (b,).

    Args:
      network: with its weights, on the host.
      mesh: of sharding.mesh.make_mesh.
      records: of data.dataset.Dataset.records.
      stage: one of model.alexnet.list_stages.
      batch_size: images at once.
      dtype: in which the network computes; None: float32.
      progress: told how many images are done.

    Raises:
      InputError: the network or the batch cannot be shared by the mesh's devices, or a record is damaged.
    """
    check_mesh(network, mesh, batch_size=batch_size)
    program = _make_features(network, mesh, stage, dtype=dtype)
    params = place(mesh, network.params, parameter_specs(mesh, network.params))
    mean_image = replicate(mesh, network.mean_image)
    done = 0
    record_size = network.variant.record_size
    for batch in EvaluationBatches(records, batch_size, get_crop_decoder(records), record_size=record_size).read():
        images = place_batch(mesh, batch.images)
        rows = np.asarray(jax.device_get(program(params, images, mean_image)), np.float32)[batch.valid]
        done += len(rows)
        if progress:
            progress(done)
        yield rows, batch.labels[batch.valid]


def _make_features(network: Network, mesh: Mesh, stage: str, *, dtype: DTypeLike | None) -> Callable[..., Array]:
    """(params, whole records (b, h, w, 3), mean_image) -> (b, ...), jitted; what is after `stage` is not computed."""
    variant, classes = network.variant, len(network.classes)
    model = make_model(mesh, variant, num_classes=classes, dtype=dtype)
    (view,) = get_views('centre', variant.input_size, record=variant.record_size)
    *places, _ = get_stage_shapes(variant, num_classes=classes)[stage]
    rows = batch_spec(mesh)
    # Each device of a pair has the channels of its tower, but for those that both compute.
    last = () if stage.startswith('fc8/') else (*[None] * len(places), TOWER)

    def device_features(params: Any, images: Array, mean_image: Array) -> Array:
        crops = cut_view(images, *map(jnp.int32, view), size=variant.input_size)
        return compute_stage(model, params, crops, mean_image, stage=stage)

    def program(params: Any, images: Array, mean_image: Array) -> Array:
        sharded = jax.shard_map(
            device_features,
            mesh=mesh,
            in_specs=(parameter_specs(mesh, params), rows, REPLICATED),
            out_specs=P(*rows, *last),
        )
        return sharded(params, images, mean_image)

    return jax.jit(program, compiler_options=compiler_options(mesh))
