"""Tells how different photographs look to a network's convolutions: wires files, network and distance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_jax.console import align_columns
from alexnet_jax.data.photo_files import open_photos
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import iter_stages
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.evaluation.perceptual import compare_stages, list_compared_stages
from alexnet_jax.evaluation.predict_photos import MAX_BATCH
from alexnet_jax.files import escape_name
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.weights.lpips_linear import load_linear_layers


def compare_photos(
    names: Sequence[str], source: NetworkArgs, *, linear: str | None = None
) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Compares photographs with the first of them by centre crops, on one device.

    TrainedNetwork.distance compares whole arrays alike.

    Args:
      names: image files, folders of them, '-' for standard input.
      source: of one network.
      linear: the linear layers of LPIPS (weights.lpips_linear); None: every channel counts 1.

    Returns:
      ({'reference': name, 'distances': [{'image', 'distance'}], 'network', 'linear'}, in the order given; the same for
      people, the nearest first; 'NAME: reason' of files that are no photographs).

    Raises:
      InputError: what the user gave cannot be used, or there is nothing to compare.
    """
    if not names:
        raise InputError('no image is named: give one, and those that it is compared with')
    prepare_backend((1, 1))
    network = source.open_one()
    layers = None if linear is None else load_linear_layers(linear, network.variant)
    photos = open_photos(names, network.classes, preprocessing=network.preprocessing)
    if len(photos.names) < 2:
        others = f'; {"; ".join(photos.unusable)}' if photos.unusable else ''
        raise InputError(f'{len(photos.names)} of two photographs or more, the least to compare{others}')
    # Who is compared with whom must not depend on which files can be read.
    if photos.unusable and photos.unusable[0].startswith(f'{escape_name(names[0])}: '):
        raise InputError(f'there is nothing to compare with: {photos.unusable[0]}')
    stages = list_compared_stages(network.variant)
    batch_size = min(MAX_BATCH, 1 << (len(photos.names) - 1).bit_length())
    reference: list[np.ndarray] = []
    rows = []
    for found, _ in iter_stages(network, make_mesh(1, 1), photos.records, stages=stages, batch_size=batch_size):
        reference = reference or [found[stage][:1] for stage in stages]
        rows.append(np.asarray(compare_stages([found[stage] for stage in stages], reference, layers)))
    distances = np.concatenate(rows)[1:].tolist()
    if not np.isfinite(distances).all():
        raise InputError(f'{network.source} gives no numbers for these images: its weights are damaged')
    first, *rest = photos.names
    entries = [{'image': name, 'distance': value} for name, value in zip(rest, distances, strict=True)]
    result = {'reference': first, 'distances': entries, 'network': network.source, 'linear': linear}
    return result, _format_table(first, entries), photos.unusable


def _format_table(reference: str, entries: Sequence[dict[str, Any]]) -> str:
    nearest = sorted(entries, key=lambda entry: entry['distance'])
    rows = [[f'{entry["distance"]:.4f}', entry['image']] for entry in nearest]
    return align_columns([['distance', f'from {reference}'], *rows], right=(0,))
