"""Names the classes of photographs, and the training images nearest to them: wires files, network and figure."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from alexnet_jax.console import align_columns
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.photo_files import PhotoFiles, open_photos
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import find_stage, iter_features
from alexnet_jax.evaluation.open_networks import NetworkArgs, get_batch_size, make_predictor, open_dataset_for
from alexnet_jax.files import check_writable
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh

MOST = 5  # classes an image
NEAREST = 6  # training images an image, as in the paper's figure 4
MAX_BATCH = 32
_MOST_DRAWN = 400  # Matplotlib draws no picture of 65,536 pixels or more a side


def predict_photos(
    names: Sequence[str],
    source: NetworkArgs,
    *,
    protocol: str,
    neighbours: str | None = None,
    data_dir: str | None = None,
    figure: str | None = None,
) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Predicts the classes of photographs, on one device.

    Args:
      names: image files, folders of them, '-' for standard input.
      source: of one network.
      protocol: 'centre' or 'ten_view'.
      neighbours: a prepared dataset, whose nearest training images are wanted.
      data_dir: where that is; None: where the run's is.
      figure: a PNG to draw.

    Returns:
      ({'predictions': [{'image', 'top5': [{'index', 'class', 'probability'}]}]}, each entry with 'neighbours':
      [{'record', 'class', 'distance'}] where they were asked for; the same for people; 'NAME: reason' of files that
      are no photographs).

    Raises:
      InputError: what the user gave cannot be used.
    """
    if not names:
        raise InputError('no image is named: give one or more files or folders')
    if figure is not None:
        check_writable(pathlib.Path(figure), option='--figure')
    prepare_backend((1, 1))
    network, mesh = source.open_one(), make_mesh(1, 1)
    searched = None if neighbours is None else open_dataset_for([network], neighbours, data_dir=data_dir)
    photos = open_photos(names, network.classes, preprocessing=network.preprocessing)
    if figure is not None and len(photos.names) > _MOST_DRAWN:
        raise InputError(f'--figure draws at most {_MOST_DRAWN} images, and {len(photos.names)} are given')
    if not photos.names:
        return {'predictions': []}, '', photos.unusable
    # The next power of two, so that few programs are compiled, up to what is worth computing at once.
    batch_size = min(MAX_BATCH, 1 << (len(photos.names) - 1).bit_length())
    rows = make_predictor(network, mesh, photos.records, batch_size=batch_size)(protocol=protocol).probabilities
    entries: list[dict[str, Any]] = [
        {'image': name, 'top5': rank_classes(network, row, name=name)}
        for name, row in zip(photos.names, rows, strict=True)
    ]
    if searched is not None:
        near = _find_neighbours(network, mesh, photos, searched)
        entries = [entry | {'neighbours': images} for entry, images in zip(entries, near, strict=True)]
    text = _format_table(entries)
    if figure is not None:
        _draw(figure, entries, photos, network, searched)
        text += f'\n\ndrawn: {figure}'
    return {'predictions': entries}, text, photos.unusable


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


def _find_neighbours(network: Network, mesh: Mesh, photos: PhotoFiles, dataset: Dataset) -> list[list[dict[str, Any]]]:
    """Finds the training images nearest to each photograph by what fc8 reads (paper section 6.1)."""
    stage, records = find_stage(network.variant, network.variant.layers[-2].name), dataset.records('train')
    # One program for both: another batch size would give other last bits, and an image a distance to itself.
    options: dict[str, Any] = {'stage': stage, 'batch_size': get_batch_size([network])}
    own = iter_features(network, mesh, photos.records, **options)
    queries = np.concatenate([rows.reshape(len(rows), -1) for rows, _ in own])
    with show_progress() as report:

        def progress(done: int) -> None:
            report(f'features of {dataset.name}', done, len(records))

        batches = iter_features(network, mesh, records, **options, progress=progress)
        distances, places = find_nearest(queries, (rows.reshape(len(rows), -1) for rows, _ in batches))

    def describe(place: int, distance: float) -> dict[str, Any]:
        return {'record': place, 'class': dataset.classes[records[place][1]], 'distance': distance}

    return [list(map(describe, *row)) for row in zip(places.tolist(), distances.tolist(), strict=True)]


def find_nearest(
    queries: np.ndarray, batches: Iterable[np.ndarray], count: int = NEAREST
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the `count` rows of all `batches` together that are nearest to each query: Euclidean, exact.

    Only the best so far and one batch are in memory, so any number of images can be searched.

    Args:
      queries: float (q, d).
      batches: of float (b, d), in the order of the records.
      count: how many; fewer where there are fewer rows.

    Returns:
      Distances, float64 (q, count), ascending, and the rows' numbers, int64; of equal distances the first comes first.
    """
    from scipy.spatial.distance import cdist  # here, because few ask for it

    distances: np.ndarray = np.empty((len(queries), 0))
    places: np.ndarray = np.empty((len(queries), 0), np.int64)
    start = 0
    for batch in batches:
        # Each difference is squared, in float64: |a|^2 - 2ab + |b|^2 is faster, but not 0 from a row to itself, and
        # changes with the size of the batch.
        distances = np.hstack([distances, cdist(queries, batch)])
        places = np.hstack([places, np.tile(np.arange(start, start + len(batch)), (len(queries), 1))])
        best = np.lexsort((places, distances))[:, :count]
        distances, places = (np.take_along_axis(values, best, axis=1) for values in (distances, places))
        start += len(batch)
    return distances, places


def _format_table(entries: list[dict[str, Any]]) -> str:
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
    from alexnet_jax.evaluation.figure_4 import Predicted, draw_figure_4  # here, because few ask for it

    size = network.variant.record_size
    records: Any = searched and searched.records('train')
    shown = []
    for index, (entry, label) in enumerate(zip(entries, photos.labels, strict=True)):
        near = [
            (read_whole_image(records, one['record'], record_size=size), one['class'])
            for one in entry.get('neighbours', ())
        ]
        image = read_whole_image(photos.records, index, record_size=size)
        true = None if label is None else network.classes[label]
        shown.append(Predicted(image, true, [(one['class'], one['probability']) for one in entry['top5']], near))
    draw_figure_4(path, shown)
