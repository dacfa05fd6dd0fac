"""Diagnoses every broken case: the screen names its cause, and none for a healthy run.

experiments/doctor_cases.py, whose cases these are, tries them on real datasets.
"""

import math

import numpy as np
import pytest

from alexnet_jax.doctor import screen
from experiments.doctor_cases import CASES, format_row

pytestmark = pytest.mark.slow

# Cases that take seconds and measure nothing new: test_rules.py has the rules. The first two are programs of their own.
FOR_THE_TABLE = {
    'weight decay x 1000',
    'every step fed the same dropout key',
    'the mean image of pixels in 0..1',
    'one class',
    'weights of fc8 20 times too large',
}
# Cases whose figures the others have too, or test_network_stats.py.
REPEATED = {
    'pixels in 0..1',
    'biases of 1, std 0.01, the norm behind ReLU (`paper`)',
    'mean not subtracted',
    'learning rate / 100',
    'images all black',
    'ReLUs of fc6 dead',
}


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[pytest.mark.repeats] * (name in REPEATED))
        for name in CASES
        if name not in FOR_THE_TABLE
    ],
)
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


def test_measure_network_on_two_devices_equals_one(diagnose):
    """The network of the broken case is the healthy one until units are dropped."""
    one = diagnose('healthy').measurements
    two = diagnose('both towers fed the same dropout key').measurements
    for name, stats in one.network.before.items():
        other = two.network.before[name]
        np.testing.assert_allclose(
            (stats.mean, stats.spread, stats.variation),
            (other.mean, other.spread, other.variation),
            rtol=1e-3,
            atol=1e-5,
        )
        np.testing.assert_allclose(stats.highest, other.highest, rtol=1e-3, atol=1e-4)
    assert two.network.dropout.kept == pytest.approx(0.5, abs=0.02)
    assert two.network.dropout.correlations['towers'] == pytest.approx(1)
