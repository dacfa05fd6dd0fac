"""Wires a report: opens runs, asks their networks about their validation images, and writes the page."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from alexnet_jax import InputError
from alexnet_jax.data.pipeline import whole
from alexnet_jax.data.source import Records, open_dataset
from alexnet_jax.evaluation.predictions import Predictions, predict_split
from alexnet_jax.figures import inside, learning
from alexnet_jax.figures.album import Album
from alexnet_jax.figures.exchanges import exchanges
from alexnet_jax.figures.maps import maps_of
from alexnet_jax.figures.page import Html, element, page, paragraph, section
from alexnet_jax.figures.palette import RUN_COLOURS
from alexnet_jax.figures.runs import Run, names_of, read_run
from alexnet_jax.parallel.devices import prepare_backend
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.running.networks import precision_of
from alexnet_jax.training.config import MESHES
from alexnet_jax.training.trained import load_config

_BATCH = 64  # images at once; changes no number that is shown


@dataclasses.dataclass(frozen=True)
class _Tested:
    """What a run's network says of its validation images.

    Attributes:
      records: the images.
      record_size: their side.
      predictions: in their order.
    """

    records: Records
    record_size: int
    predictions: Predictions

    def picture(self, index: int) -> np.ndarray:
        """uint8 (record_size, record_size, 3) of an image."""
        return whole(self.records, index, record_size=self.record_size)


def write_report(
    workdirs: Sequence[pathlib.Path],
    *,
    output: pathlib.Path,
    figures: pathlib.Path | None = None,
    image: pathlib.Path | None = None,
    data_dir: str | None = None,
    protocol: str = 'centre',
) -> str:
    """Writes one HTML file about one run or several; returns a line that says what it did.

    Args:
      workdirs: run folders.
      output: the file.
      figures: a folder for the pictures as PNGs; None: none.
      image: a photograph for the feature maps; None: the first validation image that the network is right about.
      data_dir: where the prepared datasets are; None: where each run had them.
      protocol: 'centre' or 'ten_view', of what is confused.

    Raises:
      InputError: a folder is no run with a checkpoint, two are the same, the image cannot be read, or the file not
        written.
    """
    if len(workdirs) > len(RUN_COLOURS):
        raise InputError(f'{len(workdirs)} runs are too many to tell apart: name at most {len(RUN_COLOURS)}')
    if len({workdir.resolve() for workdir in workdirs}) < len(workdirs):
        raise InputError('--workdir names a run twice')
    if not output.parent.is_dir():
        raise InputError(f'cannot write {output}: there is no folder {output.parent}')
    configs = [load_config(workdir) for workdir in workdirs]
    prepare_backend((max(math.prod(config.mesh or MESHES[config.parallelism]) for config in configs), 1))
    runs, album = [], Album()
    for workdir, name in zip(workdirs, names_of(workdirs), strict=True):
        _say(f'reading {workdir}')
        runs.append(read_run(workdir, name=name))
    sections = _common(runs, album)
    for index, run in enumerate(runs):
        sections += _of_run(run, album, index=index, several=len(runs) > 1, image=image, data_dir=data_dir,
                            protocol=protocol)  # fmt: skip
    sections += [
        ('paper', 'Beside the paper', learning.beside_the_paper(runs)),
        ('speed', 'Speed', learning.speed(runs, album)),
        ('facts', 'To do it again', learning.facts(runs)),
    ]
    _write(output, page(*_title(runs), sections, _foot(workdirs)))
    pictures = f', {album.write(figures)} pictures in {figures}' if figures else ''
    return f'{output}: {output.stat().st_size / 1e6:.1f} MB{pictures}'


def _title(runs: Sequence[Run]) -> tuple[str, Html]:
    if len(runs) > 1:
        names = ', '.join(run.name for run in runs)
        return f'{len(runs)} runs compared', paragraph(f'AlexNet on {_sets(runs)}: {names}.')
    run = runs[0]
    differ = ' how its two towers came to differ,' if run.has_towers else ''
    lead = (
        f'AlexNet ({learning.network_words(run)}) on {run.config.dataset}, {len(run.network.classes)} classes: what it '
        f'learned,{differ} and what it still confuses.'
    )
    return run.name, paragraph(lead)


def _sets(runs: Sequence[Run]) -> str:
    return ' and '.join(sorted({run.config.dataset for run in runs}))


def _common(runs: Sequence[Run], album: Album) -> list[tuple[str, str, Html]]:
    parts = []
    if len(runs) > 1:
        parts.append(('runs', 'The runs', learning.comparison(runs)))
    else:
        parts.append(('result', 'Result', section('result', 'Result', learning.headline(runs[0]))))
    return [*parts, ('learning', 'Learning', learning.learning(runs, album))]


def _of_run(
    run: Run,
    album: Album,
    *,
    index: int,
    several: bool,
    image: pathlib.Path | None,
    data_dir: str | None,
    protocol: str,
) -> list[tuple[str, str, Html]]:
    """The sections that every run has of its own."""
    tested, missing = _tested(run, data_dir=data_dir, protocol=protocol)
    picture, what = _image(run, tested, image)
    maps = found = [paragraph(f'Left out: {missing}')]
    if picture is not None:
        maps = inside.feature_maps(run, maps_of(run.network, picture), picture, what, album)
    if tested:
        found = inside.mistakes(run, tested.predictions, protocol.replace('_', '-'), tested.picture, album)
    parts = [
        ('filters', 'First layer', 'The first layer, by tower', inside.filters(run, album)),
        ('maps', 'Feature maps', 'An image on its way', maps),
        ('mistakes', 'Mistakes', 'What it confuses', found),
        ('exchanges', 'Who talks to whom', 'Who talks to whom', exchanges(run, album)),
    ]
    shown = []
    for anchor, name, title, content in parts:
        if several:
            anchor, name, title = (
                f'{anchor}{index}',
                f'{run.name}: {name}',
                f'{run.name}: {title[0].lower()}{title[1:]}',
            )
        shown.append((anchor, name, section(anchor, title, *content)))
    return shown


def _tested(run: Run, *, data_dir: str | None, protocol: str) -> tuple[_Tested | None, str]:
    """The run's network on its validation split; or why not: the dataset is not here, and the report says so."""
    try:
        dataset = open_dataset(run.config.dataset, data_dir=data_dir or run.config.data_dir)
        records = dataset.read_by(run.network.variant).records('validation')
    except InputError as error:
        _say(f'{run.name}: {error}; the report leaves out what needs the images')
        return None, str(error)
    _say(f'{run.name}: testing {len(records):,} images, {protocol.replace("_", "-")}')
    mesh = make_mesh(1, 1, devices=jax.devices()[:1])
    options: dict[str, Any] = {'batch_size': _BATCH, 'dtype': precision_of(run.network)}
    found = predict_split(run.network, mesh, records, protocol=protocol, **options)
    return _Tested(records, dataset.record_size, found), ''


def _image(run: Run, tested: _Tested | None, image: pathlib.Path | None) -> tuple[np.ndarray | None, str]:
    """The image for the feature maps, and what it is."""
    if image:
        from alexnet_jax.data.items import UnusableImage  # here, because they are rarely asked for
        from alexnet_jax.data.photo import square_image

        try:
            return square_image(image.read_bytes(), record_size=run.network.variant.record_size), f'{image.name}.'
        except OSError as error:
            raise InputError(f'cannot read {image}: {error.strerror}') from error
        except UnusableImage as error:
            raise InputError(f'cannot use {image}: {error}; name another --image') from error
    if not tested:
        return None, ''
    called, labels = tested.predictions.probabilities.argmax(axis=1), tested.predictions.labels
    right = np.flatnonzero(called == labels)
    index = int(right[0]) if right.size else 0
    name, answer = (run.network.classes[which[index]] for which in (labels, called))
    verdict = 'which the network calls that too' if right.size else f'which the network calls {answer}'
    return tested.picture(index), f'Validation image {index}, of class {name}, {verdict}.'


def _foot(workdirs: Sequence[pathlib.Path]) -> Html:
    command = f'python -m alexnet_jax.report --workdir={",".join(map(str, workdirs))}'
    return paragraph(
        'Made by ', element('code', command), '. The paper: Krizhevsky, Sutskever and Hinton, ImageNet Classification '
        'with Deep Convolutional Neural Networks, NIPS 2012.',
    )  # fmt: skip


def _write(output: pathlib.Path, content: str) -> None:
    """The whole file or none of it."""
    half = output.with_name(f'.{output.name}.half')
    try:
        half.write_text(content, encoding='utf-8', errors='replace')
        os.replace(half, output)
    except OSError as error:
        raise InputError(f'cannot write {output}: {error.strerror}') from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
