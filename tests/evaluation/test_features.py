"""Features of single stages against the plain network, on meshes."""

import jax
import numpy as np
import oracle
import pytest
from random_networks import network_of
from simplejpeg import decode_jpeg

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import find_stage, format_stages, iter_features
from alexnet_jax.evaluation.strongest import draw_strongest, find_strongest
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh


@pytest.fixture(scope='module')
def network():
    return network_of()


@pytest.fixture(scope='module')
def expected(network, tiny):
    """By the plain network's functions: some stages of all 13 validation images' centre crops."""
    images = np.stack([decode_jpeg(jpeg)[16:240, 16:240] for jpeg, _ in tiny.records('validation')]).astype(np.float32)
    p = network.params

    @jax.jit
    def plain(x):
        conv1 = oracle.FIRST['released'](oracle.conv(x, p['conv1'], stride=4, pad=((0, 3), (0, 3))))
        x = conv2 = oracle.SECOND['released'](oracle.conv(conv1, p['conv2'], pad=((2, 2), (2, 2)), groups=2))
        for name, groups in (('conv3', 1), ('conv4', 2), ('conv5', 2)):
            x = oracle.relu(oracle.conv(x, p[name], pad=((1, 1), (1, 1)), groups=groups))
        fc6 = oracle.relu(oracle.pool(x).reshape(len(x), -1) @ p['fc6']['kernel'] + p['fc6']['bias']) * 0.5
        fc7 = oracle.relu(fc6 @ p['fc7']['kernel'] + p['fc7']['bias']) * 0.5
        return {'conv2': conv2, 'conv5/relu': x, 'fc7': fc7, 'fc8': fc7 @ p['fc8']['kernel'] + p['fc8']['bias']}

    return plain(images - network.mean_image)


@pytest.mark.parametrize(
    ('shape', 'layer'),
    [  # a convolution's halves, a dense layer's, and fc8, which both devices have whole
        ((1, 2), 'conv2'),
        ((2, 2), 'fc7'),
        ((1, 2), 'fc8'),
        pytest.param((1, 1), 'conv5/relu', marks=pytest.mark.repeats),
    ],
)
def test_iter_features_equals_the_plain_network(network, tiny, expected, shape, layer):
    """Towers put together in their order, units halved, 13 images in batches of 4."""
    records, told = tiny.records('validation'), []
    stage = find_stage(network.variant, layer)
    found = list(iter_features(network, make_mesh(*shape), records, stage=stage, batch_size=4, progress=told.append))
    rows = np.concatenate([rows for rows, _ in found])
    scale = np.abs(expected[layer]).max()
    assert scale > 0.1
    np.testing.assert_allclose(rows / scale, expected[layer] / scale, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found]), [label for _, label in records])
    assert told == [4, 8, 12, 13]


@pytest.mark.parametrize(('layer', 'count'), [('conv2', 3), ('fc7', 20)])
def test_find_strongest_equals_a_loop(network, tiny, expected, layer, count):
    """Of a place, and of none; of more images than there are."""
    stage, made = find_stage(network.variant, layer), np.asarray(expected[layer])
    found = find_strongest(network, make_mesh(1, 2), tiny.records('validation'), stage=stage, count=count, batch_size=4)
    scale, alive = np.abs(made).max(), 0
    for channel, (values, records, boxes) in enumerate(zip(found.values, found.records, found.boxes, strict=True)):
        own = made[..., channel]
        peaks = sorted((float(one.max()) for one in own), reverse=True)[:count]
        np.testing.assert_allclose(values / scale, np.array(peaks) / scale, rtol=0, atol=2e-5)
        assert len(set(records.tolist())) == len(records) == min(count, 13)
        for value, record, box in zip(values, records, boxes, strict=True):
            assert own[record].max() / scale == pytest.approx(value / scale, abs=2e-5)
            if layer == 'fc7':
                assert box.tolist() == [16, 16, 240, 240]
            elif value > 0:
                # conv1 reads 11 pixels every 4, pooled 19 every 8; conv2 51 from 16 before, normalised in windows of 5
                # 83 from 32 before, pooled 99 every 16.
                row, column = np.unravel_index(own[record].argmax(), own[record].shape)
                ends = [(max(0, 16 * at - 32) + 16, min(224, 16 * at + 67) + 16) for at in (row, column)]
                assert box.tolist() == [ends[0][0], ends[1][0], ends[0][1], ends[1][1]]
                alive += 1
    assert alive > 20 or layer == 'fc7'


def test_draw_strongest_cuts_patches_where_they_are(network, tiny):
    """Two channels of either tower, four patches each; what lies outside of the crop is grey."""
    records = tiny.records('validation')
    found = find_strongest(network, make_mesh(1, 1), records, stage='conv1/linear', count=4, batch_size=13)
    half = found.values.shape[0] // 2
    channels = [0, 1, half, half + 1]
    picture = np.asarray(draw_strongest(found, records, record_size=256, groups=[channels[:2], channels[2:]]))
    assert picture.shape == (82 + 24 + 82, 82 + 12 + 82, 3)  # a patch is 40, gaps are 2, 12 and 24
    for place, channel in enumerate(channels):
        top, left = place // 2 * (82 + 24), place % 2 * (82 + 12)
        for number in range(4):
            y, x, bottom, right = found.boxes[channel, number].tolist()
            patch = decode_jpeg(records[int(found.records[channel, number])][0])[y:bottom, x:right]
            tile = picture[top + number // 2 * 42 :, left + number % 2 * 42 :][:40, :40]
            assert abs(tile.mean(axis=(0, 1)) - patch.mean(axis=(0, 1))).max() < 4 or patch.shape != (11, 11, 3)


def test_find_stage_takes_a_layer_for_its_last_stage():
    assert find_stage(VARIANTS['released'], 'conv1') == 'conv1/relu'
    assert find_stage(VARIANTS['paper'], 'conv1') == 'conv1/pool'
    assert find_stage(VARIANTS['paper'], 'conv1/norm') == 'conv1/norm'
    assert find_stage(VARIANTS['one_weird_trick'], 'fc7') == 'fc7/relu'
    for layer in ('pool5', 'conv', 'fc7/', ''):
        with pytest.raises(InputError, match='--layer=help lists them'):
            find_stage(VARIANTS['paper'], layer)


def test_format_stages_lists_all(network):
    lines = format_stages(network).splitlines()
    assert len(lines) == 23
    assert lines[2].split() == ['conv1/pool', '27x27x6', '4,374']
    assert lines[-2].split() == ['fc7/dropout', '256', '256', '=', 'fc7']
