"""Tests networks as the paper did: wires processes, mesh, networks, dataset and the folder of results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.console import align_columns
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.distributed.exit import ExitHandler
from alexnet_jax.distributed.hosts import ProcessGroup, allgather_str, check_same_on_hosts, sync_hosts
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import measures, tables
from alexnet_jax.evaluation.open_networks import NetworkArgs, get_batch_size, get_dtype, list_remarks, open_test_dataset
from alexnet_jax.evaluation.predictions import Predictions, Predictor
from alexnet_jax.evaluation.references import Reference, select_references
from alexnet_jax.evaluation.views import PROTOCOLS
from alexnet_jax.files import write_json
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh

ENSEMBLE = 'mean of all'  # the name of the averaged probabilities in tables and result.json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is to be tested, as flags say it.

    Attributes:
      dataset, data_dir: None: those of the runs.
      split: of the dataset.
      protocols: of evaluation.views.
      mesh: (data, tower) devices.
      batch_size: images at once; None: the first run's.
      output: the folder of results; None: WORKDIR/evaluation of the only run.
    """

    dataset: str | None = None
    data_dir: str | None = None
    split: str = 'validation'
    protocols: Sequence[str] = PROTOCOLS
    mesh: tuple[int, int] = (1, 1)
    batch_size: int | None = None
    output: str | None = None


def evaluate(
    source: NetworkArgs,
    settings: Settings,
    *,
    group: ProcessGroup,
    heartbeat: int,
    join_timeout: float,
    exit_handler: ExitHandler,
) -> tuple[dict[str, Any], str]:
    """Tests the networks of `source`, together with the other processes of `group`, and writes the folder of results.

    Returns:
      (what is in result.json, in every process the same; tables for people, '' in all but one process).

    Raises:
      InputError: what the user gave cannot be used.
    """
    output = _output(source, settings)
    for protocol in settings.protocols:
        if protocol not in PROTOCOLS:
            raise InputError(f'--protocols names {protocol!r}: it must be {" or ".join(PROTOCOLS)}, or both')
    prepare_backend(settings.mesh, processes=group.count)
    group = exit_handler.connect(group, heartbeat=heartbeat, timeout=join_timeout)
    problem = _refusal(output) if group.index == 0 else ''
    if problem := next(filter(None, allgather_str('output', problem)), ''):  # now, and not after hours
        raise InputError(problem)
    networks = source.open()
    dataset = open_test_dataset(networks, name=settings.dataset, data_dir=settings.data_dir)
    check_same_on_hosts({'weights': str([hash_tree(n.params) for n in networks])}, remedy='give all the same files')
    check_same_on_hosts(
        {'dataset': dataset.fingerprint, 'settings': repr(settings)}, remedy='give all the same options and data'
    )
    remarks = list_remarks(networks, dataset)
    predicted = _predict_all(networks, dataset, settings, quiet=group.index > 0)
    variants = [network.variant for network in networks]
    published = {
        protocol: select_references(protocol, networks=variants, models=len(networks)) for protocol in predicted
    }
    result, files = _measured(predicted, networks, dataset, settings, published)
    text = ''
    if group.index == 0:
        _write(output, result, files)
        for line in remarks:
            print(line, file=sys.stderr)
        text = f'{_text(result)}\n\n{output}/: {", ".join([*files, "result.json"])}'
    sync_hosts('end')
    return result, text


def _output(source: NetworkArgs, settings: Settings) -> pathlib.Path:
    if settings.output is not None:
        return pathlib.Path(settings.output)
    if len(source.workdir) == 1 and not source.weights:
        return pathlib.Path(source.workdir[0]) / 'evaluation'
    raise InputError('of several networks, or of weights without a run, the results need a folder: give --output=DIR')


def _predict_all(
    networks: Sequence[Network], dataset: Dataset, settings: Settings, *, quiet: bool
) -> dict[str, list[Predictions]]:
    """Each protocol's predictions, a list in the order of `networks`."""
    mesh, records = make_mesh(*settings.mesh), dataset.records(settings.split)
    found: dict[str, list[Predictions]] = {protocol: [] for protocol in settings.protocols}
    with _progress(quiet) as report:
        for number, network in enumerate(networks, start=1):
            predictor = Predictor(
                network,
                mesh,
                records,
                batch_size=get_batch_size(networks) if settings.batch_size is None else settings.batch_size,
                dtype=get_dtype(network),
            )
            for protocol in settings.protocols:
                of_several = f' of network {number}' if len(networks) > 1 else ''
                told = functools.partial(report, f'{tables.NAMES[protocol]}{of_several}')
                found[protocol].append(predictor.predict(protocol, progress=lambda n, t=told: t(n, len(records))))  # type: ignore[misc]
                if bad := _not_numbers(found[protocol][-1]):
                    raise InputError(f'{network.source} gives no numbers for {bad} images: its weights are damaged')
    return found


def _not_numbers(predictions: Predictions) -> int:
    probabilities = predictions.probabilities
    return int((probabilities != probabilities).any(axis=1).sum())


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    if quiet:
        yield lambda *_: None
    else:
        with show_progress() as report:
            yield report


def _measured(
    predicted: dict[str, list[Predictions]],
    networks: Sequence[Network],
    dataset: Dataset,
    settings: Settings,
    published: dict[str, list[Reference]],
) -> tuple[dict[str, Any], dict[str, tuple[Sequence[str], list[dict[str, Any]]]]]:
    """The result, and of each CSV file its columns and rows: those of the ensemble where there are several networks."""
    several = len(networks) > 1
    protocols: dict[str, Any] = {}
    by_class: list[dict[str, Any]] = []
    confusions: list[dict[str, Any]] = []
    calibrations: list[dict[str, Any]] = []
    for protocol, members in predicted.items():
        whole = measures.ensemble(members) if several else members[0]
        bins = measures.calibration(whole)
        protocols[protocol] = _numbers(whole)
        if several:
            protocols[protocol]['members'] = [_numbers(member) for member in members]
        by_class += tables.class_rows(protocol, measures.by_class(whole, dataset.classes))
        confusions += tables.confusion_rows(protocol, measures.confusion(whole), dataset.classes)
        calibrations += tables.calibration_rows(protocol, bins)
    result = {
        'dataset': {'name': dataset.name, 'split': settings.split, 'fingerprint': dataset.fingerprint},
        'networks': [_described(network) for network in networks],
        'mesh': list(settings.mesh),
        'protocols': protocols,
        'published': {
            protocol: [
                dataclasses.asdict(row)
                | {
                    'same_network': row.is_of([network.variant for network in networks]),
                    'not_comparable': row.unlike(dataset.name, settings.split) or None,
                }
                for row in rows
            ]
            for protocol, rows in published.items()
        },
    }
    return result, {
        'per_class.csv': (tables.CLASS_COLUMNS, by_class),
        'confusion.csv': (tables.CONFUSION_COLUMNS, confusions),
        'calibration.csv': (tables.CALIBRATION_COLUMNS, calibrations),
    }


def _numbers(predictions: Predictions) -> dict[str, Any]:
    error = measures.calibration_error(measures.calibration(predictions))
    return dataclasses.asdict(measures.measure(predictions)) | {'calibration_error': error}


def _described(network: Network) -> dict[str, Any]:
    known = {key: value for key, value in network.about.items() if key in ('step', 'params_sha256')}
    return {'source': network.source} | dataclasses.asdict(network.name) | known


def _text(result: dict[str, Any]) -> str:
    """A table for each protocol, never one for both."""
    dataset, rows = result['dataset'], []
    for protocol, found in result['protocols'].items():
        sources = [network['source'] for network in result['networks']]
        members = found.get('members', [found])
        tested = list(zip(sources, members, strict=True)) + ([(ENSEMBLE, found)] if 'members' in found else [])
        names = {'dataset': dataset['name'], 'split': dataset['split']}
        rows += [*tables.error_table(protocol, tested, result['published'][protocol], **names), []]
    text = align_columns(rows[:-1], right=(2, 3, 4))
    unlike = any(row['not_comparable'] for rows in result['published'].values() for row in rows)
    return text + '\n\nOther images, or fewer classes, are easier or harder: those rows are for orientation.' * unlike


def _refusal(output: pathlib.Path) -> str:
    """Why the folder, or the one that it will be made in, cannot be written to; '' where it can."""
    try:
        folder = next(path for path in (output, *output.parents) if path.exists())
        with tempfile.TemporaryFile(dir=folder):
            return ''
    except OSError as error:
        return f'cannot write to {output}: {error.strerror}; choose another --output'


def _write(output: pathlib.Path, result: dict[str, Any], files: dict[str, Any]) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'cannot write to {output}: {error.strerror}; choose another --output') from error
    for name, (columns, rows) in files.items():
        tables.write_csv(output / name, rows, columns=columns)
    write_json(output / 'result.json', result)
