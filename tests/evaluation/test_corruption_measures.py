"""mCE and relative mCE by hand, and AlexNet's published errors."""

import csv
import pathlib

import pytest

from alexnet_jax.data.corruption_constants import CORRUPTIONS, SEVERITIES
from alexnet_jax.evaluation import corruption_measures
from alexnet_jax.evaluation.corruption_measures import (
    PublishedErrors,
    average_corruptions,
    load_published_errors,
    measure_corruption,
)
from alexnet_jax.evaluation.references import load_references

# AlexNet's: clean 0.4; of fog 0.5, 0.6, 0.7, 0.8, 0.9.
SMALL = PublishedErrors(0.4, {'fog': [0.5, 0.6, 0.7, 0.8, 0.9]})


def test_measure_corruption_by_hand():
    errors = dict(zip(SEVERITIES, [0.2, 0.25, 0.3, 0.35, 0.4], strict=True))
    found = measure_corruption('fog', errors, clean=0.15, published=SMALL)
    assert found.mean_error == pytest.approx(0.3)
    assert found.relative_error == pytest.approx(0.15)
    assert found.ce == pytest.approx(1.5 / 3.5)
    assert found.relative_ce == pytest.approx((1.5 - 5 * 0.15) / (3.5 - 5 * 0.4))
    assert measure_corruption('fog', errors, clean=None, published=SMALL).relative_ce is None
    for published, some in ((None, errors), (SMALL, {1: 0.2, 3: 0.4})):
        found = measure_corruption('fog', some, clean=0.1, published=published)
        assert (found.ce, found.relative_ce) == (None, None)
        assert found.mean_error == pytest.approx(0.3) and found.relative_error == pytest.approx(0.2)


def test_alexnet_has_an_mce_of_one():
    published = load_published_errors()
    measured = {}
    for factor in (1, 0.5):
        for name in CORRUPTIONS:
            errors = {s: published.corrupted[name][s - 1] * factor for s in SEVERITIES}
            measured[name] = measure_corruption(name, errors, clean=published.clean * factor, published=published)
        mean = average_corruptions(measured)
        assert mean.ce == pytest.approx(factor) and mean.relative_ce == pytest.approx(factor)
    some = {name: measured[name] for name in CORRUPTIONS[:14]}
    assert (average_corruptions(some).ce, average_corruptions(some).relative_ce) == (None, None)
    assert average_corruptions(some).mean_error > 0.3


def test_published_errors_have_the_means_of_another_list():
    """Severities and means were published apart: the first beside others' tables, the second with AugMix's code."""
    path = pathlib.Path(corruption_measures.__file__).with_name('corruption_references.csv')
    rows = list(csv.DictReader(path.open(newline='')))
    assert [row['corruption'] for row in rows] == ['none', *CORRUPTIONS]
    for row in rows[1:]:
        errors = [float(row[f'severity_{s}']) for s in SEVERITIES]
        assert sum(errors) / 5 == pytest.approx(float(row['mean']), abs=1e-9)
    assert all(row['source'] for row in rows)
    clean = next(row for row in load_references() if row.run == 'torchvision AlexNet')
    assert load_published_errors().clean == pytest.approx(clean.top1_error)
