"""Tests networks as the paper did: wires processes, mesh, networks, dataset and the folder of results."""

import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.console import align_columns
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.preprocessing import describe_preprocessing
from alexnet_jax.distributed.exit import ExitHandler
from alexnet_jax.distributed.hosts import ProcessGroup, allgather_str, check_same_on_hosts, sync_hosts
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import measures
from alexnet_jax.evaluation.corruption_picture import draw_corruptions
from alexnet_jax.evaluation.evaluate_corruptions import evaluate_corruptions, format_corruptions, plan_corruptions
from alexnet_jax.evaluation.evaluation_settings import ALL, OF_DATASET, EvaluationSettings
from alexnet_jax.evaluation.evaluator import Predictions
from alexnet_jax.evaluation.open_networks import (
    NetworkArgs,
    get_batch_size,
    list_remarks,
    make_predictor,
    match_classes,
    open_test_dataset,
)
from alexnet_jax.evaluation.references import Reference, select_references
from alexnet_jax.evaluation.relabelling import format_summary, match_labels, read_relabelling
from alexnet_jax.evaluation.views import PROTOCOLS
from alexnet_jax.files import format_csv, write_file, write_json
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.network import Network
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh

ENSEMBLE = 'mean of all'  # the name of the averaged probabilities in the table
_REFUSED = 'cannot write to {}: {}; choose another --output'


def evaluate_networks(
    source: NetworkArgs,
    settings: EvaluationSettings,
    *,
    group: ProcessGroup,
    heartbeat: int,
    join_timeout: float,
    stuck_after: float,
    exit_handler: ExitHandler,
) -> tuple[dict[str, Any], str]:
    """Tests the networks of `source`, together with the other processes of `group`, and writes the folder of results.

    Returns:
      (what is in result.json, in every process the same; tables for people, '' in all but one process).

    Raises:
      InputError: what the user gave cannot be used.
    """
    output = _choose_output(source, settings)
    plan = plan_corruptions(settings)
    relabelling = None if settings.labels is None else read_relabelling(settings.labels)
    if plan and relabelling:
        raise InputError('--labels is for images as they are: leave out --corruptions and --corrupted')
    for protocol in settings.list_protocols():
        if protocol not in PROTOCOLS:
            raise InputError(f'--protocols names {protocol!r}: it must be {" or ".join(PROTOCOLS)}, or both')
    prepare_backend(settings.mesh, processes=group.count)
    group = exit_handler.connect(group, heartbeat=heartbeat, timeout=join_timeout, stuck_after=stuck_after)
    problem = _find_refusal(output) if group.index == 0 else ''
    if problem := next(filter(None, allgather_str('output', problem)), ''):  # now, and not after hours
        raise InputError(problem)
    PROGRESS.enter('networks and dataset')
    networks = [source.open_one()] if plan else source.open()
    dataset: Dataset | None = None  # of a folder of corrupted images none, unless it is named for their clean error
    if plan is None or plan.files is None or settings.dataset is not None:
        dataset = open_test_dataset(networks, name=settings.dataset, data_dir=settings.data_dir)
    check_same_on_hosts({'weights': str([hash_tree(n.params) for n in networks])}, remedy='give all the same files')
    check_same_on_hosts(
        {
            'dataset': dataset.fingerprint if dataset else '',
            'settings': repr((settings, relabelling and relabelling.sha256)),
        },
        remedy='give all the same options and data',
    )
    result = {
        'dataset': dataset and {'name': dataset.name, 'split': settings.split, 'fingerprint': dataset.fingerprint},
        'networks': [
            {'source': network.source}
            | dataclasses.asdict(network.name)
            | {key: network.about[key] for key in ('step', 'params_sha256') if key in network.about}
            for network in networks
        ],
        'mesh': list(settings.mesh),
        'among': settings.among,
    }
    quiet = group.index > 0
    if plan is not None:
        squares = _get_preprocessing(networks[0].preprocessing, dataset, settings) if dataset else None
        found, tables = evaluate_corruptions(networks[0], dataset, plan, settings, preprocessing=squares, quiet=quiet)
    else:
        assert dataset is not None
        # Of all the same. Where the dataset's classes alone compete, they are numbered as there.
        mapped = settings.among == ALL and match_classes(networks[0], dataset) is not None
        classes = networks[0].classes if mapped else dataset.classes
        relabelled = relabelling and match_labels(relabelling, dataset, settings.split, classes=classes)
        predicted = _predict_all(networks, dataset, settings, quiet=quiet)
        if relabelled:
            predicted = {protocol: [*map(relabelled.apply, members)] for protocol, members in predicted.items()}
            result['labels'] = relabelled.summary
        protocols, tables = _measure_all(predicted, classes)
        published = {  # by one label of an image
            protocol: [] if relabelled else _list_published(protocol, networks, dataset, settings)
            for protocol in protocols
        }
        found = {'protocols': protocols, 'published': published}
    result |= found
    text = ''
    PROGRESS.enter('tables')
    if group.index == 0:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(_REFUSED.format(output, error.strerror)) from error
        files = [*tables, 'result.json']
        for name, rows in tables.items():
            write_file(output / name, format_csv(rows))
        for name in ('per_class.csv', 'confusion.csv') if 'labels' in result else ():
            (output / name).unlink(missing_ok=True)  # of an evaluation before, by one label an image
        if plan is not None:
            draw_corruptions(output / 'corruptions.png', result)
            files.append('corruptions.png')
        write_json(output / 'result.json', result)
        among = settings.among
        remarks = list_remarks(networks, plan.files, among=among) if plan and plan.files else []
        if dataset:
            remarks += list_remarks(networks, dataset, among=among)
            remarks += _list_other_squares(networks, dataset, settings)
        for line in remarks:
            print(line, file=sys.stderr)
        text = f'{(format_corruptions if plan else _format_tables)(result)}\n\n{output}/: {", ".join(files)}'
    sync_hosts('end')
    return result, text


def _choose_output(source: NetworkArgs, settings: EvaluationSettings) -> pathlib.Path:
    if settings.output is not None:
        return pathlib.Path(settings.output)
    if len(source.workdir) == 1 and not source.weights:
        corrupted = settings.corruptions or settings.corrupted is not None
        relabelled = 'evaluation' if settings.labels is None else 'relabelled'
        return pathlib.Path(source.workdir[0]) / ('corruptions' if corrupted else relabelled)
    raise InputError('of several networks, or of weights without a run, the results need a folder: give --output=DIR')


def _find_refusal(output: pathlib.Path) -> str:
    """Returns why the folder, or the one that it will be made in, cannot be written to; '' where it can."""
    try:
        folder = next(path for path in (output, *output.parents) if path.exists())
        with tempfile.TemporaryFile(dir=folder):
            return ''
    except OSError as error:
        return _REFUSED.format(output, error.strerror)


def _predict_all(
    networks: Sequence[Network], dataset: Dataset, settings: EvaluationSettings, *, quiet: bool
) -> dict[str, list[Predictions]]:
    """Returns each protocol's predictions, a list in the order of `networks`."""
    mesh = make_mesh(*settings.mesh)
    batch_size = settings.batch_size or get_batch_size(networks)
    predicted: dict[str, list[Predictions]] = {protocol: [] for protocol in settings.list_protocols()}
    with show_progress() as report:
        for number, network in enumerate(networks, start=1):
            records = dataset.records(
                settings.split, preprocessing=_get_preprocessing(network.preprocessing, dataset, settings)
            )
            mapping = match_classes(network, dataset)
            among = mapping if settings.among == OF_DATASET else None
            predict = make_predictor(network, mesh, records, batch_size=batch_size, among=among)
            for protocol, members in predicted.items():
                title = PROTOCOLS[protocol] + (f' of network {number}' if len(networks) > 1 else '')

                def progress(done: int, title: str = title) -> None:
                    if not quiet:
                        report(title, done, dataset.examples(settings.split))

                PROGRESS.enter(f'{title} test')
                found = predict(protocol=protocol, progress=progress)
                if bad := int(np.isnan(found.probabilities).any(axis=1).sum()):
                    raise InputError(f'{network.source} gives no numbers for {bad} images: its weights are damaged')
                if mapping is not None and among is None:
                    found = dataclasses.replace(found, labels=np.asarray(mapping, np.int32)[found.labels])
                members.append(found)
    return predicted


def _get_preprocessing(own: str, dataset: Dataset, settings: EvaluationSettings) -> str:
    """Returns how images become squares for a network whose `own` were so: prepared ones are what they are."""
    return settings.preprocessing or (own if dataset.photos else dataset.preprocessing)


def _measure_all(
    predicted: dict[str, list[Predictions]], classes: Sequence[str]
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Returns each protocol's errors, and each CSV file's rows: those of the ensemble where there are several networks.

    Where several classes of an image may be right there are no tables by the right one. Of a confusion matrix only
    cells that are not 0 get a row: of 1000 classes a million would be.
    """
    protocols: dict[str, Any] = {}
    tables: dict[str, list[dict[str, Any]]] = {'per_class.csv': [], 'confusion.csv': [], 'calibration.csv': []}
    for protocol, members in predicted.items():
        whole = measures.average_predictions(members) if len(members) > 1 else members[0]
        protocols[protocol] = _measure_errors(whole)
        if len(members) > 1:
            protocols[protocol]['members'] = [_measure_errors(member) for member in members]
        key = {'protocol': protocol}
        tables['calibration.csv'] += [key | dataclasses.asdict(r) for r in measures.measure_calibration(whole)]
        if whole.right is not None:
            continue
        matrix = measures.count_confusions(whole)
        tables['per_class.csv'] += [key | dataclasses.asdict(r) for r in measures.measure_classes(whole, classes)]
        tables['confusion.csv'] += [
            key | {'class': classes[i], 'called': classes[j], 'images': int(matrix[i, j])}
            for i, j in zip(*np.nonzero(matrix), strict=True)
        ]
    return protocols, {name: rows for name, rows in tables.items() if rows}


def _measure_errors(predictions: Predictions) -> dict[str, Any]:
    error = measures.compute_calibration_error(measures.measure_calibration(predictions))
    return dataclasses.asdict(measures.measure_errors(predictions)) | {'calibration_error': error}


def _list_published(
    protocol: str, networks: Sequence[Network], dataset: Dataset, settings: EvaluationSettings
) -> list[dict[str, Any]]:
    variants = [network.variant for network in networks]
    return [
        dataclasses.asdict(row)
        | {
            'same_network': row.is_of(variants),
            'other_squares': _describe_other_squares(row, networks, dataset, settings),
            'not_comparable': row.unlike(dataset.name, settings.split) or None,
        }
        for row in select_references(protocol, networks=variants, models=len(networks))
    ]


def _describe_other_squares(
    row: Reference, networks: Sequence[Network], dataset: Dataset, settings: EvaluationSettings
) -> str | None:
    """Describes how the images of a published error became squares, where those tested here did otherwise."""
    same = [network for network in networks if row.is_of([network.variant])]
    tested = {_get_preprocessing(network.preprocessing, dataset, settings) for network in same}
    if not tested - {preprocessing := NETWORKS[row.variant].preprocessing if same else ''}:
        return None
    return describe_preprocessing(preprocessing, dataset.record_size)


def _list_other_squares(networks: Sequence[Network], dataset: Dataset, settings: EvaluationSettings) -> list[str]:
    """Lists the networks that are tested on squares made otherwise than those that they were trained on."""
    remarks = []
    for network in networks:
        own, tested = network.preprocessing, _get_preprocessing(network.preprocessing, dataset, settings)
        if own != tested:
            known, found = (f'{name} ({describe_preprocessing(name, dataset.record_size)})' for name in (own, tested))
            remarks.append(f'{network.source} was trained on squares made by {known}, and these are made by {found}')
    return remarks


def _format_tables(result: dict[str, Any]) -> str:
    """Makes a table for each protocol, never one for both: what was tested here, then what was published."""
    dataset, rows = result['dataset'], []
    for protocol, found in result['protocols'].items():
        tested = [found] if 'members' not in found else [*found['members'], found]
        names = [*(network['source'] for network in result['networks']), ENSEMBLE]
        rows.append([f'{PROTOCOLS[protocol]}:', 'dataset', 'images', 'top-1', 'top-5', ''])
        for name, one in zip(names, tested, strict=False):
            errors = [f'{one[key]:.2%}' for key in ('top1_error', 'top5_error')]
            text = f'loss {one["loss"]:.3f}, calibration error {one["calibration_error"]:.2%}'
            rows.append([f'  {name}', f'{dataset["name"]}, {dataset["split"]}', f'{one["examples"]:,}', *errors, text])
        for row in result['published'][protocol]:
            errors = ['' if row[key] is None else f'{row[key]:.1%}' for key in ('top1_error', 'top5_error')]
            change = 'the same network' if row['same_network'] else row['change']
            squares = row['other_squares'] and f'its images: {row["other_squares"]}'
            text = '; '.join(filter(None, (change, squares, row['not_comparable'])))
            rows.append([f'  {row["run"]}', f'{row["dataset"]}, {row["split"]}', '', *errors, text])
        rows.append([])
    table = align_columns(rows[:-1], right=(2, 3, 4))
    if 'labels' in result:
        table += f'\n\n{format_summary(result["labels"])}'
    unlike = any(row['not_comparable'] for rows in result['published'].values() for row in rows)
    return table + '\n\nOther images, or fewer classes, are easier or harder: those rows are for orientation.' * unlike
