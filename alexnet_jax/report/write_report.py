"""Writes a report: opens runs, tests their networks on their validation images, and renders the page."""

import functools
import math
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from alexnet_jax.checkpoints.load import load_config
from alexnet_jax.console import info
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluator import Predictions
from alexnet_jax.evaluation.open_networks import make_predictor
from alexnet_jax.files import check_writable, write_file
from alexnet_jax.model.network import Network
from alexnet_jax.report import sections
from alexnet_jax.report.drawing import RUN_COLOURS, FigureCollection
from alexnet_jax.report.page import PROTOCOLS, Section, render_page
from alexnet_jax.report.run_folder import RunFolder, load_run_folder, make_run_names
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh


def write_report(
    workdirs: Sequence[pathlib.Path],
    *,
    output: pathlib.Path | None = None,
    figures: pathlib.Path | None = None,
    image: pathlib.Path | None = None,
    data_dir: str | None = None,
    protocol: str = 'centre',
) -> str:
    """Writes one HTML file about one run or several; returns a line that says what was written.

    Args:
      workdirs: run folders.
      output: the file; None: report.html in the run folder, of several comparison.html in the first.
      figures: a folder for the figures as PNG files; None: none.
      image: a photograph for the feature maps; None: the first validation image that the network is right about.
      data_dir: where the prepared datasets are; None: where each run had them.
      protocol: 'centre' or 'ten_view', under which mistakes are counted.

    Raises:
      InputError: a folder is no run with a checkpoint, two are the same, the image cannot be read, or the file not
        written.
    """
    if len(workdirs) > len(RUN_COLOURS):
        raise InputError(f'{len(workdirs)} runs are too many to tell apart: name at most {len(RUN_COLOURS)}')
    if len({workdir.resolve() for workdir in workdirs}) < len(workdirs):
        raise InputError('--workdir names a run twice')
    configs = [load_config(workdir) for workdir in workdirs]
    # Beside what it is about: the folder in which a command is run is often not to be written to.
    output = output or workdirs[0] / ('report.html' if len(workdirs) == 1 else 'comparison.html')
    check_writable(output, option='--output')
    if figures is not None:
        _make_folder(figures)
    prepare_backend((max(math.prod(config.mesh) for config in configs), 1))
    runs, collection = [], FigureCollection()
    for index, (workdir, name) in enumerate(zip(workdirs, make_run_names(workdirs), strict=True)):
        info(f'reading {workdir}')
        runs.append(load_run_folder(workdir, name=name, index=index))
    parts = [sections.make_result_section(runs), sections.make_learning_section(runs, collection)]
    for run in runs:
        parts += _make_run_sections(run, collection, image=image, data_dir=data_dir, protocol=protocol)
    parts += [sections.make_paper_section(runs), sections.make_speed_section(runs, collection)]
    write_file(output, render_page(runs, [*parts, sections.make_facts_section(runs)]))
    written = f', {collection.write(figures)} pictures in {figures}' if figures else ''
    return f'{output}: {output.stat().st_size / 1e6:.1f} MB{written}'


def _make_folder(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'cannot make {folder}: {error.strerror}; choose another --figures') from error
    check_writable(folder / 'picture.png', option='--figures')


def _make_run_sections(
    run: RunFolder, figures: FigureCollection, *, image: pathlib.Path | None, data_dir: str | None, protocol: str
) -> list[Section]:
    """Makes the sections that every run has of its own."""
    photo = _read_photo(image, run.network) if image else None
    mistakes, patches, missing = None, [], ''
    try:
        dataset = open_dataset(run.config.dataset, data_dir=data_dir or run.config.data_dir)
        records = dataset.check_variant(run.network.variant).records('validation')
    except InputError as error:
        info(f'{run.name}: {error}; the report leaves out what needs the images')
        missing = str(error)
    else:
        info(f'{run.name}: testing {len(records):,} images, {PROTOCOLS[protocol]}')
        mesh = make_mesh(1, 1, devices=jax.devices()[:1])
        predictions = make_predictor(run.network, mesh, records, batch_size=sections.BATCH)(protocol=protocol)
        read_image = functools.partial(read_whole_image, records, record_size=dataset.record_size)
        mistakes = sections.make_mistakes_section(run, figures, predictions, protocol=protocol, read_image=read_image)
        photo = photo or _choose_image(run, predictions, read_image)
        patches = [sections.make_patches_section(run, figures, records, mesh)]
    return [
        *([sections.make_signals_section(run, figures)] if run.probes else []),
        sections.make_filters_section(run, figures),
        sections.make_maps_section(run, figures, *photo) if photo else Section('maps', {'missing': missing}, run),
        *patches,
        mistakes or Section('mistakes', {'missing': missing}, run),
        sections.make_exchanges_section(run, figures),
    ]


def _read_photo(path: pathlib.Path, network: Network) -> tuple[np.ndarray, str]:
    """Reads a photograph as a record of the network, uint8 (record_size, record_size, 3), with its description."""
    from alexnet_jax.data.photo import UnusableImage, square_image  # here, because they are rarely asked for

    size, preprocessing = network.variant.record_size, network.preprocessing
    try:
        square = square_image(path.read_bytes(), record_size=size, preprocessing=preprocessing)
        return square, f'{path.name}.'
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    except UnusableImage as error:
        raise InputError(f'cannot use {path}: {error}; name another --image') from error


def _choose_image(
    run: RunFolder, predictions: Predictions, read_image: Callable[[int], np.ndarray]
) -> tuple[np.ndarray, str]:
    """Reads the first validation image that the network is right about, or else the first; with its description."""
    answers = predictions.probabilities.argmax(axis=1)
    right = np.flatnonzero(answers == predictions.labels)
    index = int(right[0]) if right.size else 0
    label, answer = (run.network.classes[classes[index]] for classes in (predictions.labels, answers))
    verdict = 'which the network calls that too' if right.size else f'which the network calls {answer}'
    return read_image(index), f'Validation image {index}, of class {label}, {verdict}.'
