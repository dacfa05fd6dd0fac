"""Computes what any stage of a network makes of images: the features of the centre crop, as in testing.

The original's `--write-features` did the same (CHM shownet.py). Nothing is dropped: hidden units are multiplied by 1/2,
where a network's dropout is the original's. One process; on a mesh with towers both halves are put together.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from alexnet_jax.data.augment import centre_crop, normalise
from alexnet_jax.data.dataset import Source
from alexnet_jax.data.decode import get_crop_decoder
from alexnet_jax.data.pipeline import EvaluationBatches
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.open_networks import get_dtype, place_network
from alexnet_jax.evaluation.views import cut_view, get_views
from alexnet_jax.model.alexnet import INTERMEDIATES, AlexNet, get_stage_shapes, list_stages
from alexnet_jax.model.network import Network
from alexnet_jax.model.ops import DropoutStream
from alexnet_jax.model.spec import Variant
from alexnet_jax.sharding.backend import compiler_options
from alexnet_jax.sharding.mesh import REPLICATED, TOWER, batch_spec, parameter_specs, place_batch
from alexnet_jax.training.step import make_model


def find_stage(variant: Variant, layer: str) -> str:
    """Returns the stage that `layer` names: itself, or the last one of a layer; `InputError` where there is neither."""
    known = list_stages(variant)
    if layer in known:
        return layer
    if own := [stage for stage in known if stage.startswith(f'{layer}/')]:
        return own[-1]
    raise InputError(f'--layer={layer}: the network {variant.name} has no such layer; --layer=help lists them')


def format_stages(network: Network) -> str:
    """Lists all stages with the shape of one image's features, and which are the last of a layer."""
    shapes = get_stage_shapes(network.variant, num_classes=len(network.classes))
    width = max(map(len, shapes))
    lines = []
    for stage, shape in shapes.items():
        layer = stage.split('/')[0]
        alias = f'  = {layer}' if find_stage(network.variant, layer) == stage else ''
        lines.append(f'{stage:<{width}}  {"x".join(map(str, shape)):>10}  {math.prod(shape):>7,}{alias}')
    return '\n'.join(lines)


def compute_stages(
    model: AlexNet, params: Any, crops: Array, mean: Array, dropout: DropoutStream | None = None
) -> dict[str, Array]:
    """Computes all stages, (b, ...) in the model's dtype, of crops (b, size, size, 3), numeric, 0..255; traceable.

    `mean` is what `normalise` subtracts from them; with `dropout` units are dropped as in training.
    """
    pixels = normalise(crops, mean, std=model.variant.pixel_std)
    return model.apply({'params': params}, pixels, dropout, mutable=[INTERMEDIATES])[1][INTERMEDIATES]


def iter_features(
    network: Network,
    mesh: Mesh,
    records: Source,
    *,
    stage: str,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of all images of `records` in order: features, float32 (b, ...), and labels, int32 (b,).

    `stage` is one of model.alexnet.list_stages, `progress` is told how many images are done; the rest, and what is
    raised, as of `open_networks.make_predictor`.
    """
    options: dict[str, Any] = {'batch_size': batch_size, 'progress': progress}
    for rows, labels in iter_stages(network, mesh, records, stages=(stage,), **options):
        yield rows[stage], labels


def iter_stages(
    network: Network,
    mesh: Mesh,
    records: Source,
    *,
    stages: Sequence[str],
    batch_size: int,
    progress: Callable[[int], None] | None = None,
    summarise: Callable[[Array], Any] | None = None,
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yields batches as `iter_features` does, of several stages at once: {stage: float32 (b, ...)} and labels.

    `summarise` is called on the devices with (b, ..., channels) of a stage; its arrays (b, channels) take that's place.
    """
    for stage in stages:
        network.check_trained(stage.split('/')[0])
    params, mean_image = place_network(network, mesh, batch_size=batch_size)
    program = _make_features(network, mesh, stages, summarise)
    done, decode = 0, get_crop_decoder(records)
    for batch in EvaluationBatches(records, batch_size, decode, record_size=network.variant.record_size).read():
        images = place_batch(mesh, batch.images)
        found = jax.device_get(program(params, images, mean_image))
        rows = jax.tree.map(lambda array, valid=batch.valid: _widen(array)[valid], found)
        labels = batch.labels[batch.valid]
        done += len(labels)
        if progress:
            progress(done)
        yield rows, labels


def _widen(array: np.ndarray) -> np.ndarray:
    return array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)


def _make_features(
    network: Network, mesh: Mesh, stages: Sequence[str], summarise: Callable[[Array], Any] | None
) -> Callable[..., dict[str, Any]]:
    """Makes (params, records (b, h, w, 3), mean_image) -> {stage: (b, ...)}, jitted; nothing else is computed."""
    variant, classes = network.variant, len(network.classes)
    model = make_model(mesh, variant, num_classes=classes, dtype=get_dtype(network))
    (view,) = get_views('centre', variant.input_size, record=variant.record_size)
    shapes = get_stage_shapes(variant, num_classes=classes)
    rows = batch_spec(mesh)

    def get_spec(stage: str) -> P:
        # Each device of a pair has the channels of its tower, but for those that both compute.
        between = [None] * (0 if summarise else len(shapes[stage]) - 1)
        return P(*rows, *(() if stage.startswith('fc8/') else (*between, TOWER)))

    def device_features(params: Any, images: Array, mean_image: Array) -> dict[str, Any]:
        crops = cut_view(images, *map(jnp.int32, view), size=variant.input_size)
        mean = jnp.asarray(centre_crop(mean_image, variant.input_size))
        found = compute_stages(model, params, crops, mean)
        return {stage: summarise(found[stage]) if summarise else found[stage] for stage in stages}

    specs = (parameter_specs(mesh, network.params), rows, REPLICATED)
    made = {stage: get_spec(stage) for stage in stages}
    program = jax.shard_map(device_features, mesh=mesh, in_specs=specs, out_specs=made)
    return jax.jit(program, compiler_options=compiler_options(mesh))
