"""Probes a network: what a simple classifier on each layer's features tells apart, on a prepared dataset."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_jax.console import align_columns
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import measures
from alexnet_jax.evaluation.evaluator import Predictions
from alexnet_jax.evaluation.features import find_stage
from alexnet_jax.evaluation.open_networks import NetworkArgs, get_batch_size, open_dataset_for
from alexnet_jax.evaluation.probe_classifiers import CLASSIFIERS, check_classifiers, fit_classifier
from alexnet_jax.evaluation.probe_features import Features, make_features
from alexnet_jax.evaluation.probe_picture import draw_probe
from alexnet_jax.files import format_csv, write_file, write_json
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.backend import prepare_backend


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What is probed.

    Attributes:
      dataset: a prepared dataset; the classifier learns from its training split.
      data_dir: where that is; None: where the run's is.
      split: the images that the classifier is tested on.
      layers: layers or stages; none: every layer that has weights.
      classifier: one of CLASSIFIERS.
      output: a folder for the results.
      cache: a folder for features; None: OUTPUT/features.
      batch_size: images at once; None: the run's, or 128.
    """

    dataset: str
    data_dir: str | None = None
    split: str = 'validation'
    layers: Sequence[str] = ()
    classifier: str = 'linear'
    output: str
    cache: str | None = None
    batch_size: int | None = None


def probe(source: NetworkArgs, settings: ProbeSettings) -> tuple[dict[str, Any], str]:
    """Computes the features of each layer once, fits a classifier to each, and writes the folder of results.

    Returns:
      (what is in result.json; a table for people).

    Raises:
      InputError: what the user gave cannot be used.
    """
    if settings.classifier not in CLASSIFIERS:
        raise InputError(f'--classifier={settings.classifier}: give one of {", ".join(CLASSIFIERS)}')
    check_classifiers()
    output = pathlib.Path(settings.output)
    prepare_backend((1, 1))
    network = source.open_one()
    dataset = open_dataset_for([network], settings.dataset, data_dir=settings.data_dir)
    stages = _choose_stages(network, settings.layers)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'cannot write {output}: {error.strerror}; choose another --output') from error
    began = time.perf_counter()
    trained, tested = (
        _make_features(network, dataset, split, stages=list(stages.values()), settings=settings)
        for split in ('train', settings.split)
    )
    seconds = time.perf_counter() - began
    layers: list[dict[str, Any]] = []
    tables: dict[str, list[dict[str, Any]]] = {'per_class.csv': [], 'confusion.csv': []}
    for layer, stage in stages.items():
        row, predictions = _probe_layer(settings.classifier, trained[stage], tested[stage], dataset)
        layers.append({'layer': layer, 'stage': stage, **row})
        for name, rows in _make_tables(predictions, dataset.classes).items():
            tables[name] += [{'layer': layer, **entry} for entry in rows]
    result = {
        'network': network.source,
        'dataset': {'name': dataset.name, 'split': settings.split, 'fingerprint': dataset.fingerprint},
        'images': {'train': len(trained[layers[0]['stage']][1]), settings.split: len(tested[layers[0]['stage']][1])},
        'classifier': settings.classifier,
        'best': max(layers, key=lambda row: row['held_out'])['layer'],
        'layers': layers,
        'features_seconds': seconds,
    }
    for name, rows in {'layers.csv': layers, **tables}.items():
        write_file(output / name, format_csv(rows))
    title = f'{settings.classifier} classifier on the layers of {network.source}; {dataset.name}, {settings.split}'
    draw_probe(output / 'layers.png', layers, title=title)
    write_json(output / 'result.json', result)
    return result, f'{_format_table(result)}\n\n{output}/: layers.csv, {", ".join(tables)}, layers.png, result.json'


def _choose_stages(network: Network, layers: Sequence[str]) -> dict[str, str]:
    """Chooses {layer: the stage that the next one reads}: those of `layers`, or of all that have weights."""
    names = layers or [layer.name for layer in network.variant.layers if layer.name not in network.untrained]
    stages = {name: find_stage(network.variant, name) for name in names}
    for stage in stages.values():
        network.check_trained(stage.split('/')[0])
    return stages


def _make_features(
    network: Network, dataset: Dataset, split: str, *, stages: Sequence[str], settings: ProbeSettings
) -> dict[str, Features]:
    cache = pathlib.Path(settings.cache or pathlib.Path(settings.output, 'features'))
    total = len(dataset.records(split))
    with show_progress() as report:
        return make_features(
            network,
            dataset,
            split,
            stages=stages,
            cache=cache,
            batch_size=settings.batch_size or get_batch_size([network]),
            progress=lambda done: report(f'features of {dataset.name}, {split}', done, total),
        )


def _probe_layer(
    kind: str, trained: Features, tested: Features, dataset: Dataset
) -> tuple[dict[str, Any], Predictions]:
    """Returns a layer's row of the table, and what the classifier says of the tested images."""
    began = time.perf_counter()
    (features, labels), (others, right) = trained, tested
    fitted = fit_classifier(kind, features, labels, others, num_classes=len(dataset.classes))
    predictions = Predictions(fitted.scores, right)
    top1, top5 = (float((1 - measures.score_images(predictions, k)).mean()) for k in (1, 5))
    row = {
        'numbers': features.shape[1],
        'chosen': fitted.chosen,
        'held_out': fitted.held_out,
        'top1_error': top1,
        'top5_error': top5,
        'seconds': time.perf_counter() - began,
    }
    return row, predictions


def _make_tables(predictions: Predictions, classes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Makes the rows by class and of the confusion matrix's cells that are not 0; scores are no probabilities."""
    matrix = measures.count_confusions(predictions)
    rows = [dataclasses.asdict(row) for row in measures.measure_classes(predictions, classes)]
    return {
        'per_class.csv': [{key: row[key] for key in row if key != 'mean_probability'} for row in rows],
        'confusion.csv': [
            {'class': classes[i], 'called': classes[j], 'images': int(matrix[i, j])}
            for i, j in zip(*np.nonzero(matrix), strict=True)
        ],
    }


def _format_table(result: dict[str, Any]) -> str:
    rows = [['layer', 'numbers', 'chosen', 'top-1 error', 'top-5 error', 'seconds']]
    for row in result['layers']:
        errors = [f'{row[key]:.2%}' for key in ('top1_error', 'top5_error')]
        rows.append([row['layer'], f'{row["numbers"]:,}', row['chosen'], *errors, f'{row["seconds"]:.1f}'])
    counts, dataset = result['images'], result['dataset']
    text = (
        f'{result["classifier"]} classifier on features of {result["network"]}: learned from {counts["train"]:,} '
        f'images of {dataset["name"]}, tested on {counts[dataset["split"]]:,} ({dataset["split"]}); features took '
        f'{result["features_seconds"]:.0f} s'
    )
    return f'{text}\n{align_columns(rows, right=(1, 3, 4, 5))}\nbest on held-out training images: {result["best"]}'
