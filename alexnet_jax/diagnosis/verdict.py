"""The verdict: from what was measured to what is wrong, the first to be mended first."""

from __future__ import annotations

import itertools

from alexnet_jax.diagnosis.case import Case, Finding, Rule
from alexnet_jax.diagnosis.input_causes import DROPOUT, INPUT, LABELS, TELLING
from alexnet_jax.diagnosis.training_causes import TRAINING


def findings(case: Case) -> list[Finding]:
    """What is wrong; [] where nothing was found. Of each group of rules the first that finds something speaks.

    How training goes is judged only where the pixels are right: with wrong ones it goes wrong because of them.
    """
    of_input = _first(INPUT, case)
    found = of_input + _first(LABELS, case) + _first(DROPOUT, case)
    return found if of_input else found + _first(TRAINING, case)


def _first(rules: tuple[Rule, ...], case: Case) -> list[Finding]:
    """What the first of `rules` that finds something finds, if one does."""
    return list(itertools.islice(filter(None, (rule(case) for rule in rules)), 1))


def notes(case: Case) -> list[str]:
    """What a user should know and what is no cause by itself."""
    found, data = list(case.subject.notes), case.data
    if data.images < TELLING and (data.probe is None or data.probe.sigmas < 3):
        found.append(f'{data.images} images are too few to tell whether labels belong to them')
    if data.classes_seen < 0.5 * data.classes_possible and data.images >= 4 * case.subject.classes:
        found.append(f'only {data.classes_seen} of {case.subject.classes} classes were seen in {data.images:,} images')
    size = case.subject.config.batch_size
    if size < 8:
        found.append(f'batches of {size}: their gradients are mostly noise; take 32 or more, or a smaller rate')
    last = case.last_error
    errors = [line['top1_error'] for line in case.subject.history if line.get('split') == 'train']
    if last is not None and errors and last - errors[-1] > 0.25:
        found.append(f'it learns by heart: top-1 error {errors[-1]:.0%} in training, {last:.0%} in validation')
    return found
