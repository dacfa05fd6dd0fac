"""Explains what a network takes photographs for: wires files, network, methods, check and figure."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from alexnet_jax.console import align_columns, suggest
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.photo_files import PhotoFiles, open_photos
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.attribution import METHODS
from alexnet_jax.evaluation.explainer import Explainer, Settings, find_half, list_peaks, make_maps
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.evaluation.randomisation import correlate_ranks, iter_randomised
from alexnet_jax.files import check_writable, replacing
from alexnet_jax.logs.progress import show_progress
from alexnet_jax.model.network import Network
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.weights.class_names import find_classes

ALL = 'all'
MAX_BATCH = 32
_MOST_DRAWN = 100  # rows
_MOST_LISTED = 30  # classes in an error's line


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Photographs as the methods read them: those behind `count` are repetitions, for one size of all batches."""

    images: jax.Array
    classes: np.ndarray
    count: int


def explain_photos(
    names: Sequence[str],
    source: NetworkArgs,
    *,
    methods: Sequence[str],
    class_name: str | None = None,
    randomised: bool = False,
    figure: str | None = None,
    output: str | None = None,
    settings: Settings | None = None,
    mesh: tuple[int, int] = (1, 1),
) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Explains photographs.

    Args:
      names: image files, folders of them, '-' for standard input.
      source: of one network.
      methods: of attribution.METHODS, or 'all' of them.
      class_name: whose logit is explained, by name or number; None: each photograph's most probable one.
      randomised: whether the maps are compared with those of networks whose layers are drawn anew.
      figure: a PNG to draw.
      output: an .npz of all maps to write.
      settings: of the methods; None: their defaults.
      mesh: (data, tower) devices.

    Returns:
      ({'explanations': [{'image', 'index', 'class', 'logit', 'probability', 'methods': {method: {'peak', 'half'}}}]},
      with 'randomised': {method: {layer: rank correlation}} where that was asked for; the same for people; 'NAME:
      reason' of files that are no photographs).

    Raises:
      InputError: what the user gave cannot be used.
    """
    methods = _choose_methods(methods)
    if not names:
        raise InputError('no image is named: give one or more files or folders')
    for path, option, suffix in ((figure, '--figure', '.png'), (output, '--output', '.npz')):
        if path is not None:
            if pathlib.Path(path).suffix != suffix:
                raise InputError(f'{option}={path}: the name must end in {suffix}')
            check_writable(pathlib.Path(path), option=option)
    prepare_backend(mesh)
    network = source.open_one()
    chosen = None if class_name is None else _find_class(network, class_name)
    explainer = Explainer(network, settings or Settings(), make_mesh(*mesh))
    for method in methods:
        explainer.check_method(method)
    photos = open_photos(names, network.classes, preprocessing=network.preprocessing)
    if figure is not None and len(photos.names) > _MOST_DRAWN:
        raise InputError(f'--figure draws at most {_MOST_DRAWN} images, and {len(photos.names)} are given')
    if not photos.names:
        return {'explanations': []}, '', photos.unusable
    crops = _read_crops(network, photos)
    batches, logits = _make_batches(explainer, crops, chosen)
    if not np.isfinite(logits).all():
        raise InputError(f'{network.source} gives no numbers for {photos.names[0]}: its weights are damaged')
    attributions = _explain(explainer, explainer.params, batches, methods)
    size = network.variant.input_size
    maps = {method: make_maps(found, method=method, size=size) for method, found in attributions.items()}
    entries = _describe(network, photos, np.concatenate([b.classes[: b.count] for b in batches]), logits, maps)
    found: dict[str, Any] = {'explanations': entries}
    text = _format_table(entries)
    if randomised:
        found['randomised'] = _compare_randomised(network, explainer, batches, maps)
        text += f'\n\n{_format_randomised(found["randomised"])}'
    if output is not None:
        _write_npz(pathlib.Path(output), network, crops, entries, attributions, maps)
        text += f'\n\nwritten: {output}'
    if figure is not None:
        from alexnet_jax.evaluation.explain_picture import draw_explanations  # here, because not all ask for it

        draw_explanations(figure, crops, entries, attributions, maps)
        text += f'\n\ndrawn: {figure}'
    return found, text, photos.unusable


def _choose_methods(methods: Sequence[str]) -> tuple[str, ...]:
    if not methods:
        raise InputError(f'--method names none: known are {ALL}, {", ".join(METHODS)}')
    for method in methods:
        if method not in (*METHODS, ALL):
            raise InputError(f'--method={method}: {suggest(method, (*METHODS, ALL))}')
    return METHODS if ALL in methods else tuple(dict.fromkeys(methods))


def _find_class(network: Network, name: str) -> int:
    """Finds an output by its class's name, synset or synonym, or else by its number, counted from 0."""
    found = find_classes([name], network.classes)
    if found is not None:
        return found[0]
    count = len(network.classes)
    if name.isascii() and name.isdigit() and int(name) < count:
        return int(name)
    known = suggest(name, network.classes)
    if count > _MOST_LISTED and known.startswith('known'):
        known = f'known are {", ".join(network.classes[:3])} and {count - 3:,} more, or their numbers, 0 to {count - 1}'
    raise InputError(f'--class={name}: {network.source} has no such class, {known}')


def _read_crops(network: Network, photos: PhotoFiles) -> np.ndarray:
    """Reads the centre crops: uint8 (n, size, size, 3)."""
    record, size = network.variant.record_size, network.variant.input_size
    whole = (read_whole_image(photos.records, i, record_size=record) for i in range(len(photos.names)))
    return np.stack([np.asarray(centre_crop(image, size)) for image in whole])


def _make_batches(explainer: Explainer, crops: np.ndarray, chosen: int | None) -> tuple[list[_Batch], np.ndarray]:
    """Makes batches of one size, and computes all logits (n, classes), which say what is to be explained."""
    size = min(MAX_BATCH, 1 << (len(crops) - 1).bit_length())
    size = explainer.parts * -(-size // explainer.parts)  # every device has as many
    batches, rows = [], []
    for start in range(0, len(crops), size):
        part = crops[start : start + size]
        images = explainer.prepare(np.concatenate([part, part[-1:].repeat(size - len(part), axis=0)]))
        logits = explainer.compute_logits(explainer.params, images)
        classes = np.argmax(logits, axis=1) if chosen is None else np.full(size, chosen)
        batches.append(_Batch(images, classes.astype(np.int32), len(part)))
        rows.append(logits[: len(part)])
    return batches, np.concatenate(rows)


def _explain(
    explainer: Explainer, params: Any, batches: Sequence[_Batch], methods: Sequence[str], *, of: str = ''
) -> dict[str, np.ndarray]:
    """Computes {method: (n, ...)} of all batches; `of` says of which parameters, for people."""
    total, made = sum(batch.count for batch in batches), {}
    with show_progress() as report:
        for method in methods:
            rows, done = [], 0
            for batch in batches:
                found = explainer.explain(params, batch.images, batch.classes, method=method)
                rows.append(found[: batch.count])
                done += batch.count
                report(f'{method}{of}', done, total)
            made[method] = np.concatenate(rows)
    return made


def _describe(
    network: Network, photos: PhotoFiles, classes: np.ndarray, logits: np.ndarray, maps: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    probabilities = np.asarray(jax.nn.softmax(logits, axis=1))
    peaks = {method: list_peaks(found) for method, found in maps.items()}
    entries = []
    for row, (name, index) in enumerate(zip(photos.names, classes.tolist(), strict=True)):
        entry = {'image': name, 'index': index, 'class': network.classes[index]}
        entry |= {'logit': float(logits[row, index]), 'probability': float(probabilities[row, index])}
        half = {method: find_half(found[row]) for method, found in maps.items()}
        entry['methods'] = {method: {'peak': peaks[method][row], 'half': half[method]} for method in maps}
        entries.append(entry)
    return entries


def _compare_randomised(
    network: Network, explainer: Explainer, batches: Sequence[_Batch], maps: dict[str, np.ndarray]
) -> dict[str, dict[str, float | None]]:
    """Computes {method: {layer: rank correlation}} of the magnitudes of maps, the mean over photographs."""
    size = network.variant.input_size
    found: dict[str, dict[str, float | None]] = {method: {} for method in maps}
    for layer, params in iter_randomised(network, seed=0):
        spoilt = _explain(explainer, explainer.place(params), batches, tuple(maps), of=f', drawn anew to {layer}')
        for method, own in maps.items():
            pairs = zip(own, make_maps(spoilt[method], method=method, size=size), strict=True)
            values = [correlate_ranks(np.abs(one), np.abs(other)) for one, other in pairs]
            known = [value for value in values if value is not None]
            found[method][layer] = float(np.mean(known)) if known else None
    return found


def _format_table(entries: Sequence[dict[str, Any]]) -> str:
    rows = [['image', 'probability', 'class', 'method', 'peak (row, column)', 'half of it in']]
    for entry in entries:
        for place, (method, one) in enumerate(entry['methods'].items()):
            first = place == 0
            shown = [entry['image'], f'{entry["probability"]:.1%}', entry['class']] if first else ['', '', '']
            half = 'nothing' if one['half'] is None else f'{one["half"]:.1%} of pixels'
            rows.append([*shown, method, '{}, {}'.format(*one['peak']), half])
    return align_columns(rows, right=(1,))


def _format_randomised(found: dict[str, dict[str, float | None]]) -> str:
    layers = list(next(iter(found.values())))
    rows = [['drawn anew from the top to', *layers]]
    for method, values in found.items():
        rows.append([method, *('-' if value is None else f'{value:.2f}' for value in values.values())])
    return 'Rank correlation of maps with those of a network whose layers are drawn anew:\n' + align_columns(
        rows, right=range(1, 1 + len(layers))
    )


def _write_npz(
    path: pathlib.Path,
    network: Network,
    crops: np.ndarray,
    entries: Sequence[dict[str, Any]],
    attributions: dict[str, np.ndarray],
    maps: dict[str, np.ndarray],
) -> None:
    """Writes files, crops, index, logit, classes, network, and of each method METHOD and METHOD_map."""
    arrays: dict[str, Any] = {'files': [entry['image'] for entry in entries], 'crops': crops}
    arrays |= {'index': np.array([entry['index'] for entry in entries], np.int32), 'classes': network.classes}
    arrays |= {'logit': np.array([entry['logit'] for entry in entries], np.float32), 'network': network.source}
    arrays |= attributions | {f'{method}_map': found for method, found in maps.items()}
    with replacing(path) as file:
        np.savez(file, **arrays)
