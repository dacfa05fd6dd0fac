"""The input pipeline's figures as text, at most 110 columns wide."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile

from alexnet_jax.benchmark.figures import Figures
from alexnet_jax.benchmark.input_figures import KINDS, STAGES, report
from alexnet_jax.benchmark.input_stages import Files, write_photos
from alexnet_jax.benchmark.measure import Progress, measure_input
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.report import noise, spread
from alexnet_jax.data.source import open_dataset
from alexnet_jax.model.catalogue import PAPER

_TF = {'default': 'tf.data, its default transform', 'accurate': 'tf.data, INTEGER_ACCURATE'}


def measured(
    setting: Setting,
    *,
    images: str | None,
    tf: bool,
    appetite: float | None,
    rounds: int,
    seconds: float,
    progress: Progress,
) -> tuple[Figures, str]:
    """Measures the input pipeline; returns the figures, and as text.

    Args:
      setting: with a dataset.
      images: a folder of photographs; None: artificial ones.
      tf: beside tf.data too.
      appetite: images/s of the training step; None: measured too.
      rounds: turns of each program.
      seconds: of a turn, at least.
      progress: called with lines for the person who waits.

    Raises:
      InputError: no such dataset, no photographs, or this machine has not what is needed.
    """
    open_dataset(setting.dataset, data_dir=setting.data_dir).read_by(PAPER)
    with tempfile.TemporaryDirectory() as folder:
        if images is None:
            write_photos(pathlib.Path(folder))
        setting = dataclasses.replace(setting, photos=images or folder)
        Files(setting.photos)
        results = measure_input(
            setting, tf=tf, appetite=appetite is None, rounds=rounds, seconds=seconds, progress=progress
        )
    figures = report(results, appetite=appetite)
    return figures, text(figures)


def text(figures: Figures) -> str:
    """All tables."""
    hardware, moved = figures['hardware'], figures['bytes']
    lines = [
        f'{hardware["cpu"]}, {hardware["cores"]} cores; {hardware["system"]}',
        ', '.join(f'{name} {version}' for name, version in figures['versions'].items()),
        f'dataset {figures["dataset"]}: {moved["read"]:,.0f} bytes a record, {moved["photo_read"]:,.0f} a photograph, '
        f'{moved["transfer"]:,.0f} to the device; batch {figures["batch"]}',
        '',
        f'{"stage, alone on one thread":44}{"images/s per core (quartiles)":>34}{"us an image":>14}',
    ]
    for name, title in STAGES.items():
        stage = figures['stages'][name]
        cost = 1e6 / stage['images_per_second']
        lines.append(f'{title:44}{spread(stage, "images_per_second", 0):>34}{cost:14.1f}')
    lines += ['', f'{"to uint8 batches, images/s (quartiles)":40}' + ''.join(f'{kind:>26}' for kind in KINDS.values())]
    for threads in figures['prepared records']['threads']:
        speeds = [spread(figures[kind]['threads'][threads], 'images_per_second', 0) for kind in KINDS.values()]
        title = f'this project, {threads} thread{"s" * (threads != "1")}'
        lines.append(f'{title:40}' + ''.join(f'{speed:>26}' for speed in speeds))
    if figures['prepared records']['tf']:
        rows = (('images_per_second', 0, ''), ('ratio', 2, 'ratio to '), ('ratio_per_core', 2, 'per core, to '))
        for key, digits, start in rows:
            for form, title in _TF.items():
                cells = [spread(figures[kind]['tf'][form], key, digits) for kind in KINDS.values()]
                lines.append(f'{start + title:40}' + ''.join(f'{cell:>26}' for cell in cells))
    verdict = {'model': 'the model is the limit', 'input': 'the input pipeline is the limit'}[figures['limit']]
    return '\n'.join([
        *lines,
        '',
        f'the training step takes {figures["appetite"]:.1f} images/s: {verdict}, '
        f'the pipeline gives {figures["headroom"]:.1f} times as many',
        *noise(figures['foreign']),
    ])  # fmt: skip
