"""Reads a run folder for alexnet_jax.evaluation.landmarks, and prints what that finds."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from alexnet_jax.checkpoints.load import load_config
from alexnet_jax.console import align_columns
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.landmarks import EPOCH, IMAGENET, LENGTH, TrainingHistory, landmarks, on_course
from alexnet_jax.logs.writers import iter_metrics
from alexnet_jax.training.config import MAX_STEPS, Config, make_config

# The recipe's numbers that make another course where they are others.
_NUMBERS = (
    *('batch_size', 'learning_rate', 'rate_batch_size', 'momentum', 'weight_decay', 'drop_factor', 'clip_norm'),
    *('crops', 'images_per_crop', 'lighting', 'precision'),
)
_RATES = {'steps': ('drop_epochs',), 'plateau': ('patience', 'max_drops')}  # of each schedule


def compare(workdir: pathlib.Path) -> tuple[str, bool]:
    """The text to print about a run, and whether it is on its course so far.

    Raises:
      InputError: it is no run folder, or it has logged nothing yet.
    """
    config, circumstances = load_config(workdir), _json(workdir / 'run.json')
    lines = [entry for _, entry in iter_metrics(workdir / 'metrics.jsonl', MAX_STEPS)]
    if not lines:
        raise InputError(f'{workdir} has logged nothing yet: its first line comes after {config.log_every} steps')
    result = _json(workdir / 'result.json')
    training = TrainingHistory(
        variant=config.variant,
        dataset=config.dataset,
        whole=config.width == 1 and not config.without,
        classes=len(circumstances.get('classes') or ()) or 1000,
        batch_size=config.batch_size,
        losses=[(line['step'], line['learning_rate'], line['loss']) for line in lines if line['split'] == 'train'],
        errors=[(line['step'], line['top1_error']) for line in lines if line.get('protocol') == 'centre'],
        epochs=_epochs(config),
        final={
            protocol: (result[protocol]['top1_error'], result[protocol]['top5_error'])
            for protocol in ('centre', 'ten_view')
            if protocol in result
        },
    )
    passed = landmarks(training)
    rows = [['landmark', 'expected', 'this run', '']]
    rows += [[landmark.name, landmark.expected, landmark.found, landmark.verdict] for landmark in passed]
    why = [f'off: {landmark.name}; {landmark.source}' for landmark in passed if landmark.verdict == 'off']
    good, step = on_course(passed), lines[-1]['step']
    reached = sum(landmark.verdict in ('as expected', 'better', 'off') for landmark in passed)
    verdict = f'on course: {reached} of {len(passed)} landmarks passed'
    if not good:
        verdict = f'OFF COURSE; alexnet doctor --workdir={workdir} looks for the cause'
    return '\n'.join([_heading(config, step), *_unlike(config), '', align_columns(rows), '', *why, verdict]), good


def _heading(config: Config, step: int) -> str:
    epochs = f' ({step * config.batch_size / EPOCH:.1f} epochs)' if config.dataset == IMAGENET else ''
    return f'{config.dataset}, {config.variant}, step {step:,}{epochs}'


def _epochs(config: Config) -> float:
    """Of the whole run, were it ImageNet's."""
    return config.get_total_steps(EPOCH) * config.batch_size / EPOCH


def _unlike(config: Config) -> list[str]:
    """What makes the landmarks another run's."""
    said = []
    if config.dataset != IMAGENET:
        said.append(f'Not {IMAGENET}: nothing is published of {config.dataset}, and most rows cannot be compared.')
    if config.width != 1 or config.without:
        said.append('Not the whole network: its errors cannot be compared.')
    usual = make_config(IMAGENET)
    other = [key for key in (*_NUMBERS, *_RATES[config.schedule]) if getattr(config, key) != usual[key]]
    if _epochs(config) < LENGTH:
        said.append(f'A run of {_epochs(config):.3g} epochs: its last errors cannot be compared with those of 90.')
    if other:
        said.append(
            'Unlike the recipe: ' + ', '.join(f'{key}={getattr(config, key)} ({usual[key]})' for key in other) + '.'
        )
    return said


def _json(path: pathlib.Path) -> dict[str, Any]:
    """{} where there is no such file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f'{path} is damaged: {error}') from error
