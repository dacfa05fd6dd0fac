"""What is measured of batches: which images can say whether labels belong to them."""

import numpy as np
import pytest

from alexnet_jax.data.pipeline import HostBatch
from alexnet_jax.doctor.data_stats import measure_data


def make_batches(labels, *, size=60):
    """Yields batches of uint8 images of 28 x 28 whose grey tells their label, in random order."""
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    for start in range(0, len(labels), size):
        records = order[start : start + size]
        grey = labels[records] % 200 + 20
        images = random.normal(grey[:, None, None, None], 5, (len(records), 28, 28, 3)).clip(0, 255).astype(np.uint8)
        rows = (len(records), 3)
        yield HostBatch(
            images, labels[records].astype(np.int32), np.zeros(rows, np.float32), records, np.zeros(rows, np.int32)
        )


@pytest.mark.parametrize(
    ('counts', 'judged'),
    [
        ([1] * 300, 0),  # of a class that was seen once nothing can be learned
        ([9] * 30, 0),
        ([10] * 30, 300),
        ([9] * 10 + [100, 110], 210),  # the rare classes are left out, and the others still tell
    ],
)
def test_measure_data_fits_its_probe_to_classes_of_ten_images_or_more(counts, judged):
    labels = np.repeat(np.arange(len(counts)), counts)
    batches = make_batches(labels)
    data = measure_data(batches, classes=len(counts), examples=len(labels), info=lambda text: None)
    assert data.images == len(labels) and data.probe_images == judged
    assert (data.probe is None) == (judged == 0)
    assert data.probe is None or data.probe.sigmas > 3  # below, labels are called shuffled
