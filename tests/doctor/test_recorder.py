"""What the recorder counts of units that saturate, against the stages that the network itself hands out."""

import jax
import numpy as np
import pytest
from builders import draw_parameters

from alexnet_jax.doctor.recorder import Recorder
from alexnet_jax.model.ablations import activate
from alexnet_jax.model.alexnet import INTERMEDIATES, AlexNet
from alexnet_jax.model.zoo import RELEASED

SLOPES = {'tanh': lambda y: 1 - y**2, 'sigmoid': lambda y: 4 * (y - y**2)}  # of the largest, 1 and 1/4


@pytest.mark.parametrize('name', ['tanh', 'sigmoid', 'relu'])
def test_recorder_counts_what_saturates(name):
    variant = activate(RELEASED, name).scaled(0.0625)
    params = {'params': jax.tree.map(np.float32, draw_parameters(variant, num_classes=3, factor=20))}
    images = np.random.default_rng(1).normal(0, 60, (4, 224, 224, 3)).astype(np.float32)
    model, recorder = AlexNet(variant, 3), Recorder(variant)
    recorded_logits = recorder.attach(model).apply(params, images)
    stats = recorder.compute_stats(recorder.flush())
    logits, sown = model.apply(params, images, mutable=[INTERMEDIATES])
    np.testing.assert_array_equal(recorded_logits, logits)
    found = {layer: own.saturated for layer, own in stats.items()}
    if name == 'relu':
        assert set(found.values()) == {None}
        return
    expected = {
        layer: (SLOPES[name](np.float64(sown[INTERMEDIATES][f'{layer}/{name}'])) < 0.01).mean()
        for layer in found
        if layer != 'fc8'
    }
    assert found.pop('fc8') is None
    assert 0.02 < max(expected.values()) < 1
    assert found == pytest.approx(expected, abs=2e-3)
