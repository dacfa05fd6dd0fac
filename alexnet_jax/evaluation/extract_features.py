"""Writes features of a dataset or of photographs to a file, or which of them excite each channel most."""

import io
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from alexnet_jax.data.photo_files import PhotoFiles, open_photos
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import find_stage, format_stages, iter_features
from alexnet_jax.evaluation.open_networks import NetworkArgs, get_batch_size, open_dataset_for
from alexnet_jax.evaluation.strongest import SHOWN, Strongest, choose_channels, draw_strongest, find_strongest
from alexnet_jax.files import check_writable, replacing, write_file
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.alexnet import get_stage_shapes
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh

SUFFIXES = ('.npz', '.parquet')
Batches = Iterable[tuple[np.ndarray, np.ndarray]]  # features, float32 (b, ...), and labels, int32 (b,)
Rows = Iterator[tuple[np.ndarray, np.ndarray, Sequence[int] | Sequence[str]]]  # and the images' places


def extract_features(
    names: Sequence[str],
    source: NetworkArgs,
    *,
    layer: str,
    output: str | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    split: str = 'validation',
    mesh: tuple[int, int] = (1, 1),
    batch_size: int | None = None,
    top: int | None = None,
    figure: str | None = None,
) -> tuple[str, tuple[str, ...]]:
    """Writes the features of image files, or of a split of a prepared dataset, or with `top` the strongest of them.

    Args:
      names: the files; none where `dataset` is given.
      source: of one network.
      layer: of `features.find_stage`; 'help' lists them and writes nothing.
      output: ends in one of SUFFIXES.
      dataset, split: what to read in place of files.
      data_dir, batch_size: None: those of the run.
      mesh: (data, tower) devices.
      top: how many images for each channel (strongest.Strongest), in place of features: .npz, see `write_strongest`.
      figure: a PNG of their patches.

    Returns:
      (what was done, for people; 'NAME: reason' of files that are no photographs).

    Raises:
      InputError: what the user gave cannot be used.
    """
    if layer != 'help' and bool(names) == bool(dataset):
        raise InputError('features of what? give image files, or --dataset=NAME')
    path = None if layer == 'help' else _check_output(output, ('.npz',) if top else SUFFIXES)
    if figure and not top:
        raise InputError('--figure draws the patches that excite each channel most: give --top=9 too')
    if figure and layer != 'help':
        check_writable(pathlib.Path(figure), option='--figure')
    prepare_backend(mesh)
    network = source.open_one()
    if path is None:
        return format_stages(network), ()
    stage = find_stage(network.variant, layer)
    photos = None
    if dataset:
        opened = open_dataset_for([network], dataset, data_dir=data_dir)
        records, classes, images = opened.records(split), opened.classes, f'{opened.name}, {split}'
    else:
        photos = open_photos(names, network.classes, preprocessing=network.preprocessing)
        records, classes, images = photos.records, network.classes, 'files'
        if not photos.names:
            return '', photos.unusable
    shape = get_stage_shapes(network.variant, num_classes=len(network.classes))[stage]
    about = {'layer': stage, 'network': network.source, 'images': images}
    with show_progress() as report:
        options: dict[str, Any] = {
            'stage': stage,
            'batch_size': batch_size or get_batch_size([network]),
            'progress': lambda done: report(f'{stage} of {images}', done, len(records)),
        }
        if top:
            found = find_strongest(network, make_mesh(*mesh), records, count=top, **options)
            write_strongest(path, found, classes=classes, about=about, photos=photos)
        else:
            batches = iter_features(network, make_mesh(*mesh), records, **options)
            write_features(path, batches, shape=shape, classes=classes, about=about, photos=photos)
    what = f'{stage} of {len(records):,} images'
    if not top:
        size = path.stat().st_size / 1e6
        done = f'{path}: {what}, {"x".join(map(str, shape))} each, {size:.1f} MB'
    else:
        done = f'{path}: the {found.values.shape[1]} that excite each of {shape[-1]:,} channels most, {what}'
    if figure:
        groups = choose_channels(shape[-1], towers=network.variant.towers)
        picture = draw_strongest(found, records, record_size=network.variant.record_size, groups=groups)
        content = io.BytesIO()
        picture.save(content, format='png')
        write_file(pathlib.Path(figure), content.getvalue())
        done += f'\n{figure}: their patches, of {min(shape[-1], SHOWN):,} channels'
    return done, photos.unusable if photos else ()


def write_strongest(
    path: pathlib.Path,
    found: Strongest,
    *,
    classes: Sequence[str],
    about: dict[str, str],
    photos: PhotoFiles | None = None,
) -> None:
    """Writes .npz: values, boxes and records or files, of strongest.Strongest; the rest as `write_features` does."""
    images = found.records if photos is None else np.array(photos.names)[found.records]
    arrays: dict[str, Any] = {'records' if photos is None else 'files': images, 'classes': classes}
    with replacing(path) as file:
        np.savez(file, values=found.values, boxes=found.boxes, **(arrays | about))


def _check_output(output: str | None, suffixes: Sequence[str]) -> pathlib.Path:
    if output is None:
        raise InputError(f'no file is named: give {" or ".join(f"--output=FILE{suffix}" for suffix in suffixes)}')
    path = pathlib.Path(output)
    if path.suffix not in suffixes:
        raise InputError(f'--output={path}: the name must end in {" or ".join(suffixes)}')
    check_writable(path, option='--output')
    return path


def write_features(
    path: pathlib.Path,
    batches: Batches,
    *,
    shape: Sequence[int],
    classes: Sequence[str],
    about: dict[str, str],
    photos: PhotoFiles | None = None,
) -> None:
    """Writes all batches, and leaves no half of a file.

    In .npz: features, float32 (n, ...), labels, int32 (n,), -1 where unknown, records (0, 1, ...) or files, classes,
    layer, network and images. All of it is in memory once.

    In .parquet, which is written batch by batch: columns record or file, label, class, and features, a list of
    prod(shape) float32 in row-major order; the rest, with the shape, in the schema's metadata.

    Args:
      path: ends in one of SUFFIXES.
      batches: of `features.iter_features`.
      shape: of one image's features.
      classes: names, in the order of the labels.
      about: {'layer': the stage, 'network': where its weights came from, 'images': dataset and split, or 'files'}.
      photos: the files that the images are; None: records of a dataset, in order.

    Raises:
      InputError: the disk does not take it.
    """
    rows, place = _iter_rows(batches, photos), 'file' if photos else 'record'
    with replacing(path) as file:
        if path.suffix == '.npz':
            _write_npz(file, rows, place, classes, about)
        else:
            _write_parquet(file, rows, place, shape, classes, about)


def _iter_rows(batches: Batches, photos: PhotoFiles | None) -> Rows:
    """Yields features, labels, -1 where the class is not known, and the images' record numbers or files."""
    start = 0
    for features, labels in batches:
        end = start + len(features)
        if photos is None:
            yield features, labels, range(start, end)
        else:
            known = [-1 if label is None else label for label in photos.labels[start:end]]
            yield features, np.array(known, np.int32), photos.names[start:end]
        start = end


def _write_npz(file: BinaryIO, rows: Rows, place: str, classes: Sequence[str], about: dict[str, str]) -> None:
    features, labels, places = map(np.concatenate, zip(*rows, strict=True))
    arrays: dict[str, Any] = {'features': features, 'labels': labels, f'{place}s': places, 'classes': classes}
    np.savez(file, **(arrays | about))


def _write_parquet(
    file: BinaryIO, rows: Rows, place: str, shape: Sequence[int], classes: Sequence[str], about: dict[str, str]
) -> None:
    import pyarrow as pa  # here, because few ask for it
    import pyarrow.parquet as pq

    size, place_type = int(np.prod(shape)), pa.string() if place == 'file' else pa.int64()
    columns = [
        (place, place_type),
        ('label', pa.int32()),
        ('class', pa.string()),
        ('features', pa.list_(pa.float32(), size)),
    ]
    metadata = about | {'shape': json.dumps(list(shape)), 'classes': json.dumps(list(classes))}
    schema = pa.schema(columns, metadata=metadata)
    with pq.ParquetWriter(file, schema) as writer:
        for features, labels, places in rows:
            label = pa.array(labels, pa.int32(), mask=labels < 0)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), size)
            cells = [pa.array(places, place_type), label, pa.array(classes, pa.string()).take(label), lists]
            writer.write_batch(pa.record_batch(cells, schema=schema))
