"""Diagnoses every broken case: the screen names its cause, and none for a healthy run.

experiments/doctor_cases.py, whose cases these are, tries them on real datasets.
"""

import math

import pytest

from alexnet_jax.doctor import screen
from experiments.doctor_cases import CASES, format_row

# Cases that take seconds and measure nothing new: test_rules.py has the rules. The first two are programs of their own.
FOR_THE_TABLE = {
    'weight decay x 1000',
    'every step fed the same dropout key',
    'the mean image of pixels in 0..1',
    'one class',
    'weights of fc8 20 times too large',
}


@pytest.mark.parametrize('name', [name for name in CASES if name not in FOR_THE_TABLE])
def test_examine_names_cause(name, lab, diagnose):
    causes = CASES[name][1]
    diagnosis = diagnose(name)
    text = screen.format_screen(diagnosis)
    print(text)
    assert [finding.cause for finding in diagnosis.findings] == causes
    assert len(text.splitlines()) <= 45
    assert max(map(len, text.splitlines())) <= 100
    for finding in diagnosis.findings:
        unwrapped = ' '.join(text.split())
        assert f'{finding.cause}: {finding.seen}' in unwrapped and finding.remedy in unwrapped
    losses = diagnosis.measurements.network.losses
    assert len(losses) == lab.steps or not math.isfinite(losses[-1])
    assert format_row(name, diagnosis).count('|') == 5
