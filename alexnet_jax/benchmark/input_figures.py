"""The input pipeline's figures from its samples: the object that `bench input --json` prints, and its tables."""

import dataclasses
import itertools
import pathlib
import tempfile

from alexnet_jax.benchmark import summary
from alexnet_jax.benchmark.measure import TF_FORMS, Measurement, Results, Samples, Turns, measure_input
from alexnet_jax.benchmark.photos import PhotoFolder, write_photos
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.summary import Figures
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.raw import JPEG
from alexnet_jax.errors import InputError
from alexnet_jax.model.zoo import PAPER

STAGES = {
    'read': 'read a record',
    'decode': 'decode it, 256x256',
    'crop': 'crop 224x224',
    'draw': 'draw crop, flip and lighting',
    'batch': 'all of these: a batch on one thread',
    'raw_batch': 'a batch of raw records on one thread',
    'cached_batch': 'a batch of records in memory',
    'transfer': 'move the batch to the device',
    'photo_read': 'read a photograph',
    'photo_decode': 'decode it',
    'photo_square': 'decode it, resize to 256x256',
    'photo_prepare': '... and encode, decode, sum: prepare',
    'photo_batch': 'a batch of crops on one thread',
}
KINDS = {'': 'prepared records', 'photo_': 'photographs'}
PIXELS = {'raw_': 'raw records', 'cached_': 'kept in memory'}
# What moves the pixels of raw records otherwise: (process, program).
OTHERS = {
    'tf.data': ('tf_default', 'raw_pipeline'),
    "Grain's own batch": ('input', 'raw_grain'),
    'memory copy, 1 thread': ('input', 'memcpy'),
}
CHIPS = (10_000, 20_000, 40_000)  # images/s that an accelerator's chip trains, about
_STAGE_WIDTHS, _PIPELINE_WIDTHS, _CORE_WIDTHS = (44, 34, 14), (40, 26, 26), (56, 12, 12, 12)


def measure_input_pipeline(
    setting: Setting, turns: Turns, *, images: str | None, tf: bool, torch: bool, appetite: float | None
) -> Figures:
    """Measures the input pipeline and returns its figures.

    Args:
      setting: with a dataset.
      images: a folder of photographs; None: artificial ones.
      tf, torch: whether to measure tf.data too, and PyTorch's DataLoader.
      appetite: images/s of the training step; None: measured too.

    Raises:
      InputError: no such dataset, no photographs, or something that is needed is missing on this machine.
    """
    dataset = open_dataset(setting.dataset, data_dir=setting.data_dir).check_variant(PAPER)
    if dataset.encoding != JPEG:
        raise InputError(f'{dataset.name} has raw records, and decoding is measured too: name one of JPEG records')
    with tempfile.TemporaryDirectory() as folder:
        if images is None:
            write_photos(pathlib.Path(folder))
        PhotoFolder(images or folder)  # refuses one without photographs before anything starts
        setting = dataclasses.replace(setting, photos=images or folder, scratch=folder)
        results = measure_input(setting, turns, tf=tf, torch=torch, model=appetite is None)
    return make_input_figures(results, appetite=appetite)


def make_input_figures(results: Results, *, appetite: float | None) -> Figures:
    """Returns the figures of what `measure.measure_input` measured; `appetite` is the model's images/s, None: measured.

    Speeds are medians over rounds in images/s, '..._quartiles' the quartiles. Those of 'stages' are for each second of
    CPU time: for each core. 'prepared records' and 'photographs' hold the speed of the whole pipeline by its number of
    threads, under 'tf' that of tf.data with as many threads as there are cores, in each form, and under 'torch' that of
    PyTorch's DataLoader with as many processes. 'ratio' compares our most threads with it, the median over rounds;
    'ratio_to_tf' is the smaller of tf.data's; 'ratio_per_core' is of CPU time, which others on the machine disturb
    less. 'per_core' holds what each pipeline makes in a second of CPU time, and 'cores' how many cores feed CHIPS so.
    'limit' names the slower of 'model' and 'input'; 'headroom' is the pipeline's speed over the model's.
    """
    samples, batch = results.network, results.setting.batch
    own = {program: measured for (name, program), measured in samples.items() if name == 'input'}
    figures: Figures = {'batch': batch, 'dataset': results.setting.dataset}
    figures['stages'] = {name: summary.summarise_speed(own[name].cpu_seconds, batch) for name in STAGES}
    figures['bytes'] = {name: own[name].moved / batch for name in ('read', 'photo_read', 'transfer')}
    for prefix, kind in KINDS.items():
        start = f'{prefix}pipeline_'
        threads = {name.removeprefix(start): own[name] for name in own if name.startswith(start)}
        figures[kind] = {'threads': {n: summary.summarise_speed(threads[n].seconds, batch) for n in threads}}
        figures[kind] |= _compare_to_peers(samples, f'{prefix}pipeline', threads[max(threads, key=int)], batch)
    figures['raw'] = _compare_raw(samples, own, batch)
    figures['per_core'] = _measure_cores(samples, own, batch)
    figures['cores'] = {
        name: {str(chip): chip / speed['images_per_second'] for chip in CHIPS}
        for name, speed in figures['per_core'].items()
    }
    if appetite is None:
        appetite = summary.summarise_speed(samples['one_device', 'train'].seconds, batch)['images_per_second']
    headroom = list(figures['prepared records']['threads'].values())[-1]['images_per_second'] / appetite
    figures |= {'appetite': appetite, 'headroom': headroom, 'limit': 'model' if headroom > 1 else 'input'}
    return figures | {'foreign': summary.summarise_foreign(samples), **summary.describe_machine(results.versions)}


def _compare_raw(samples: Samples, own: dict[str, Measurement], batch: int) -> Figures:
    """Compares raw records, with the most threads, with JPEGs and tf.data; with one thread, with a memory copy."""
    speeds: Figures = {}
    for prefix, kind in PIXELS.items():
        start = f'{prefix}pipeline_'
        threads = {name.removeprefix(start): own[name].seconds for name in own if name.startswith(start)}
        speeds[kind] = {n: summary.summarise_speed(seconds, batch) for n, seconds in threads.items()}
    most = max(speeds['raw records'], key=int)
    raw, others = own[f'raw_pipeline_{most}'], {name: samples[key] for name, key in OTHERS.items() if key in samples}
    figures = {'threads': speeds, 'others': {n: summary.summarise_speed(m.seconds, batch) for n, m in others.items()}}
    figures |= summary.summarise_ratios('ratio_to_jpeg', own[f'pipeline_{most}'].seconds, raw.seconds)
    if 'tf.data' in others:
        figures |= summary.summarise_ratios('ratio_to_tfdata', others['tf.data'].seconds, raw.seconds)
    copy, one = others['memory copy, 1 thread'], own['raw_pipeline_1']
    return figures | summary.summarise_ratios('fraction_of_memcpy', copy.seconds, one.seconds)


def _format_raw(figures: Figures) -> list[str]:
    """Formats a table of what moves pixels, and the ratios."""
    lines = ['', summary.format_row(_PIPELINE_WIDTHS, 'pixels to uint8 batches, images/s', *PIXELS.values())]
    for threads in figures['threads']['raw records']:
        cells = [summary.format_spread(figures['threads'][k][threads], 'images_per_second', 0) for k in PIXELS.values()]
        title = f'this project, {threads} thread{"s" * (threads != "1")}'
        lines.append(summary.format_row(_PIPELINE_WIDTHS, title, *cells))
    for name, speed in figures['others'].items():
        cell = summary.format_spread(speed, 'images_per_second', 0)
        lines.append(summary.format_row(_PIPELINE_WIDTHS, name, cell, ''))
    titles = {
        'ratio_to_jpeg': 'raw records to JPEG records',
        'ratio_to_tfdata': 'raw records to tf.data',
        'fraction_of_memcpy': 'of a memory copy, 1 thread',
    }
    for key in filter(figures.__contains__, titles):
        lines.append(summary.format_row(_PIPELINE_WIDTHS, titles[key], summary.format_spread(figures, key, 2), ''))
    return lines


def _compare_to_peers(samples: Samples, program: str, own: Measurement, batch: int) -> Figures:
    def compare(peer: Measurement) -> Figures:
        figures = summary.summarise_speed(peer.seconds, batch)
        figures |= summary.summarise_ratios('ratio', peer.seconds, own.seconds)
        return figures | summary.summarise_ratios('ratio_per_core', peer.cpu_seconds, own.cpu_seconds)

    forms = {form: compare(samples[key]) for form in TF_FORMS if (key := (f'tf_{form}', program)) in samples}
    loader = samples.get(('torch_loader', program))
    return {
        'tf': forms or None,
        'ratio_to_tf': min((form['ratio'] for form in forms.values()), default=None),
        'torch': None if loader is None else compare(loader),
    }


def _measure_cores(samples: Samples, own: dict[str, Measurement], batch: int) -> Figures:
    """Returns what a second of CPU time makes of images, of each pipeline with the most threads, and of peers."""
    most = max((name.removeprefix('pipeline_') for name in own if name.startswith('pipeline_')), key=int)
    found = {kind: own[f'{prefix}pipeline_{most}'] for prefix, kind in (KINDS | PIXELS).items()}
    peers = {'tf.data': 'tf_default', "PyTorch's DataLoader": 'torch_loader'}
    for (prefix, kind), (peer, process) in itertools.product(KINDS.items(), peers.items()):
        if (process, f'{prefix}pipeline') in samples:
            found[f'{kind}, {peer}'] = samples[process, f'{prefix}pipeline']
    return {name: summary.summarise_speed(measured.cpu_seconds, batch) for name, measured in found.items()}


def _format_cores(cores: Figures) -> list[str]:
    """Formats a table of how many cores feed chips."""
    lines = [
        '',
        summary.format_row(_CORE_WIDTHS, 'cores that feed a chip of so many images/s', *(f'{c:,}' for c in CHIPS)),
    ]
    return lines + [
        summary.format_row(_CORE_WIDTHS, name, *(f'{n:.1f}' for n in of.values())) for name, of in cores.items()
    ]


def format_input_figures(figures: Figures) -> str:
    """Formats all tables, at most 110 columns wide."""

    def format_pipelines(title: str, group: str, name: str, key: str, digits: int) -> str:
        found = [figures[kind][group] for kind in KINDS.values()]
        cells = [summary.format_spread(group[name] if name else group, key, digits) for group in found]
        return summary.format_row(_PIPELINE_WIDTHS, title, *cells)

    moved = figures['bytes']
    lines = [
        *summary.format_machine(figures),
        f'dataset {figures["dataset"]}: {moved["read"]:,.0f} bytes a record, {moved["photo_read"]:,.0f} a photograph, '
        f'{moved["transfer"]:,.0f} to the device; batch {figures["batch"]}',
        '',
        summary.format_row(_STAGE_WIDTHS, 'stage, alone on one thread', 'images/s per core (quartiles)', 'us an image'),
    ]
    for name, title in STAGES.items():
        stage = figures['stages'][name]
        cost = f'{1e6 / stage["images_per_second"]:.1f}'
        lines.append(
            summary.format_row(_STAGE_WIDTHS, title, summary.format_spread(stage, 'images_per_second', 0), cost)
        )
    lines += ['', summary.format_row(_PIPELINE_WIDTHS, 'to uint8 batches, images/s (quartiles)', *KINDS.values())]
    for threads in figures['prepared records']['threads']:
        title = f'this project, {threads} thread{"s" * (threads != "1")}'
        lines.append(format_pipelines(title, 'threads', threads, 'images_per_second', 0))
    rows = (('images_per_second', 0, ''), ('ratio', 2, 'ratio to '), ('ratio_per_core', 2, 'per core, to '))
    if figures['prepared records']['tf']:
        forms = {'default': 'tf.data, its default transform', 'accurate': 'tf.data, INTEGER_ACCURATE'}
        for key, digits, start in rows:
            lines += [format_pipelines(start + title, 'tf', form, key, digits) for form, title in forms.items()]
    if figures['prepared records']['torch']:
        for key, digits, start in rows:
            lines.append(format_pipelines(f"{start}PyTorch's DataLoader", 'torch', '', key, digits))
    lines += [*_format_raw(figures['raw']), *_format_cores(figures['cores'])]
    limit = {'model': 'the model', 'input': 'the input pipeline'}[figures['limit']]
    headroom = f'the pipeline gives {figures["headroom"]:.1f} times as many'
    verdict = f'the training step takes {figures["appetite"]:.1f} images/s: {limit} is the limit, {headroom}'
    return '\n'.join([*lines, '', verdict, summary.format_foreign(figures['foreign'])])
