"""Features of a dataset or of photographs into a file: wires network, images and file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.photo_files import open_photos
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import features as stage_features
from alexnet_jax.evaluation.feature_files import About, check_output, write_features
from alexnet_jax.evaluation.open_networks import NetworkArgs, get_batch_size, get_dtype
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.alexnet import get_stage_shapes
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh

HELP = 'help'  # instead of a layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is wanted, as flags say it.

    Attributes:
      layer: of evaluation.features.find_stage, or 'help'.
      output: .npz or .parquet; not of 'help'.
      dataset: a prepared dataset, where no files are named.
      data_dir: where it is; None: where the run's is.
      split: of the dataset.
      mesh: (data, tower) devices.
      batch_size: images at once; None: the run's.
    """

    layer: str
    output: str | None = None
    dataset: str | None = None
    data_dir: str | None = None
    split: str = 'validation'
    mesh: tuple[int, int] = (1, 1)
    batch_size: int | None = None


def write(names: Sequence[str], source: NetworkArgs, settings: Settings) -> tuple[str, tuple[str, ...]]:
    """Writes the file.

    Returns:
      (what was done, for people; 'NAME: reason' of files that are no photographs).

    Raises:
      InputError: what the user gave cannot be used.
    """
    output = None
    if settings.layer != HELP:
        if bool(names) == bool(settings.dataset):
            raise InputError('features of what? give image files, or --dataset=NAME')
        if settings.output is None:
            raise InputError('no file is named: give --output=FILE.npz or --output=FILE.parquet')
        output = check_output(settings.output)
    prepare_backend(settings.mesh)
    network = source.open_one()
    if output is None:
        return stage_features.format_stages(network), ()
    stage, mesh = stage_features.find_stage(network.variant, settings.layer), make_mesh(*settings.mesh)
    given: tuple[str, ...] | None = None
    labels: np.ndarray | None = None
    unusable: tuple[str, ...] = ()
    if settings.dataset:
        folder = settings.data_dir or network.about.get('config', {}).get('data_dir', 'data')
        dataset = open_dataset(settings.dataset, data_dir=folder).check_variant(network.variant)
        records, classes = dataset.records(settings.split), dataset.classes
        images = f'{dataset.name}, {settings.split}'
    else:
        photos = open_photos(names, network.classes)
        records, classes, given, unusable = photos.records, network.classes, photos.names, photos.unusable
        labels = np.array([-1 if label is None else label for label in photos.labels], np.int32)
        images = 'files'
        if not given:
            return '', unusable
    about = About(layer=stage, network=network.source, images=images, names=given, labels=labels, classes=classes)
    shape = get_stage_shapes(network.variant, num_classes=len(network.classes))[stage]
    with show_progress() as report:
        batches = stage_features.iter_features(
            network,
            mesh,
            records,
            stage=stage,
            batch_size=settings.batch_size or get_batch_size([network]),
            dtype=get_dtype(network),
            progress=lambda done: report(f'{stage} of {images}', done, len(records)),
        )
        write_features(output, batches, about, shape=shape)
    size = pathlib.Path(output).stat().st_size / 1e6
    return f'{output}: {stage} of {len(records):,} images, {"x".join(map(str, shape))} each, {size:.1f} MB', unusable
