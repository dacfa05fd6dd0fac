"""What a network takes photographs for, and which training images are nearest: wires files, network and figure."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from alexnet_jax.console import align_columns
from alexnet_jax.data.dataset import Dataset, open_dataset
from alexnet_jax.data.photo import square_image
from alexnet_jax.data.photo_files import PhotoFiles, open_photos
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import find_stage, iter_features
from alexnet_jax.evaluation.open_networks import NetworkArgs, get_batch_size, get_dtype
from alexnet_jax.evaluation.predictions import predict_split
from alexnet_jax.files import check_writable
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh

MOST = 5  # classes an image
MAX_BATCH = 32
_MOST_DRAWN = 400  # Matplotlib draws no picture of 65,536 pixels or more a side


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What has become of the photographs.

    Attributes:
      fields: {'predictions': [{'image', 'top5': [{'index', 'class', 'probability'}]}]}, for programs; each entry with
        'neighbours': [{'record', 'class', 'distance'}] where they were asked for.
      text: the same for people.
      unusable: 'NAME: reason' of files that are no photographs.
    """

    fields: dict[str, Any]
    text: str
    unusable: tuple[str, ...]


def predict(
    names: Sequence[str],
    source: NetworkArgs,
    *,
    protocol: str,
    neighbours: str | None = None,
    data_dir: str | None = None,
    figure: str | None = None,
) -> Outcome:
    """Looks at the photographs `names`, on one device.

    Args:
      names: image files.
      source: of one network.
      protocol: 'centre' or 'ten_view'.
      neighbours: a prepared dataset whose nearest training images are wanted.
      data_dir: where it is; None: where the run's is.
      figure: a PNG to draw.

    Raises:
      InputError: what the user gave cannot be used; that single files cannot is in the outcome.
    """
    if not names:
        raise InputError('no image is named: give one or more files')
    if figure is not None:
        check_writable(pathlib.Path(figure), option='--figure')
    if figure is not None and len(names) > _MOST_DRAWN:
        raise InputError(f'--figure draws at most {_MOST_DRAWN} images, and {len(names)} are named: leave some out')
    prepare_backend((1, 1))
    network, mesh = source.open_one(), make_mesh(1, 1)
    config = network.about.get('config', {})
    data_dir = data_dir or config.get('data_dir', 'data')
    searched = None
    if neighbours is not None:
        searched = open_dataset(neighbours, data_dir=data_dir).check_variant(network.variant)
    photos = open_photos(names, network.classes)
    if not photos.names:
        return Outcome({'predictions': []}, '', photos.unusable)
    entries = _predictions(network, mesh, photos, protocol)
    if searched is not None:
        _add_neighbours(entries, network, mesh, photos, searched)
    text = _table(entries)
    if figure is not None:
        _draw(figure, entries, photos, network, searched)
        text += f'\n\ndrawn: {figure}'
    return Outcome({'predictions': entries}, text, photos.unusable)


def _batch_for(images: int) -> int:
    """The next power of two, so that few programs are compiled, up to what is worth computing at once."""
    return min(MAX_BATCH, 1 << (images - 1).bit_length())


def _predictions(network: Network, mesh: Mesh, photos: PhotoFiles, protocol: str) -> list[dict[str, Any]]:
    options = {'batch_size': _batch_for(len(photos.names)), 'dtype': get_dtype(network)}
    found = predict_split(network, mesh, photos.records, protocol=protocol, **options)  # type: ignore[arg-type]
    entries = []
    for name, row in zip(photos.names, found.probabilities, strict=True):
        entries.append({'image': name, 'top5': rank_classes(network, row, name=name)})
    return entries


def rank_classes(network: Network, row: np.ndarray, *, name: str) -> list[dict[str, Any]]:
    """Returns the MOST most probable classes of image `name` as {'index', 'class', 'probability'}, the best first.

    Args:
      network: whose classes they are.
      row: float32 (classes,), the probabilities.
      name: of the image, for the error's message.

    Raises:
      InputError: a probability is not finite.
    """
    if not np.isfinite(row).all():
        raise InputError(f'{network.source} gives no numbers for {name}: its weights are damaged')
    best = np.argsort(-row, kind='stable')[:MOST]
    return [{'index': int(i), 'class': network.classes[i], 'probability': float(row[i])} for i in best]


def _add_neighbours(
    entries: list[dict[str, Any]], network: Network, mesh: Mesh, photos: PhotoFiles, dataset: Dataset
) -> None:
    """To each entry its nearest training images, by what fc8 reads."""
    from alexnet_jax.evaluation.neighbours import nearest  # here, because scikit-learn takes a second to load

    stage = find_stage(network.variant, network.variant.layers[-2].name)
    options: dict[str, Any] = {'stage': stage, 'dtype': get_dtype(network)}
    own = iter_features(network, mesh, photos.records, batch_size=_batch_for(len(photos.names)), **options)
    queries = np.concatenate([rows.reshape(len(rows), -1) for rows, _ in own])
    records = dataset.records('train')
    with show_progress() as report:

        def told(done: int) -> None:
            report(f'features of {dataset.name}', done, len(records))

        batches = iter_features(network, mesh, records, batch_size=get_batch_size([network]), progress=told, **options)
        distances, places = nearest(queries, (rows.reshape(len(rows), -1) for rows, _ in batches))
    for entry, far, where in zip(entries, distances, places, strict=True):
        entry['neighbours'] = [
            {'record': int(record), 'class': dataset.classes[records[int(record)][1]], 'distance': float(distance)}
            for record, distance in zip(where, far, strict=True)
        ]


def _table(entries: list[dict[str, Any]]) -> str:
    rows = [['image', 'probability', 'class']]
    for entry in entries:
        for place, one in enumerate(entry['top5']):
            rows.append([entry['image'] if place == 0 else '', f'{one["probability"]:.1%}', one['class']])
        if 'neighbours' in entry:
            near = (f'{one["class"]} ({one["record"]}, {one["distance"]:.1f})' for one in entry['neighbours'])
            rows.append(['', 'nearest', ', '.join(near)])
    return align_columns(rows, right=(1,))


def _draw(
    path: str, entries: list[dict[str, Any]], photos: PhotoFiles, network: Network, searched: Dataset | None
) -> None:
    from alexnet_jax.evaluation.figure_4 import Neighbour, Predicted, draw_figure_4  # here, because few ask for it

    shown, size = [], network.variant.record_size
    for entry, label in zip(entries, photos.labels, strict=True):
        image = square_image(pathlib.Path(entry['image']).read_bytes(), record_size=size)
        true = None if label is None else network.classes[label]
        shown.append(Predicted(image, true, [(one['class'], one['probability']) for one in entry['top5']]))
    near = None
    if searched is not None:
        records = searched.records('train')
        near = [
            [
                Neighbour(read_whole_image(records, one['record'], record_size=size), one['class'], one['distance'])
                for one in entry['neighbours']
            ]
            for entry in entries
        ]
    draw_figure_4(path, shown, near)
