"""Activation maximisation: the images excite what they are made for, more than any photograph and anything else's."""

import jax
import numpy as np
import oracle
import pytest
from PIL import Image
from random_networks import network_of, save_run
from simplejpeg import decode_jpeg

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import maximise
from alexnet_jax.evaluation.maximise import cut_middle, draw_maximised, maximise_channels
from alexnet_jax.evaluation.open_networks import NetworkArgs

CHANNELS = (0, 3, 9)


@pytest.fixture(scope='module')
def network():
    return network_of()


@pytest.fixture(scope='module')
def measure(network):
    """The middle of conv2's map before its ReLU, (n, channels), by the plain network's functions."""
    p = network.params

    @jax.jit
    def plain(images):
        conv1 = oracle.FIRST['released'](
            oracle.conv(images - network.mean_image, p['conv1'], stride=4, pad=((0, 3), (0, 3)))
        )
        return oracle.conv(conv1, p['conv2'], pad=((2, 2), (2, 2)), groups=2)[:, 13, 13]

    return lambda images: np.asarray(plain(np.asarray(images, np.float32)))


def test_maximise_channels_excite_the_unit_most(network, measure, tiny):
    images, values = maximise_channels(network, stage='conv2/linear', channels=CHANNELS, steps=40)
    assert images.shape == (3, 224, 224, 3) and images.dtype == np.uint8
    reached = measure(images)
    photos = measure([decode_jpeg(jpeg)[16:240, 16:240] for jpeg, _ in tiny.records('validation')])
    for row, channel in enumerate(CHANNELS):
        assert values[row, 1] == pytest.approx(reached[row, channel], rel=0.02)  # before it was rounded
        assert values[row, 1] > values[row, 0]
        assert reached[row, channel] > photos[:, channel].max()
        assert reached[row, channel] == max(reached[:, channel])
    alone, _ = maximise_channels(network, stage='conv2/linear', channels=[3], steps=40)
    assert np.abs(alone[0].astype(int) - images[1]).max() <= 1


def test_cut_middle_cuts_what_the_unit_reads(network):
    """conv2's unit 13 of 27 reads conv1's maps 11 to 15, which begin at 8 n and are 19 wide: 88 to 139."""
    images = np.arange(224 * 224 * 3).reshape(1, 224, 224, 3)
    np.testing.assert_array_equal(cut_middle(network, images, stage='conv2/linear'), images[:, 88:139, 88:139])
    np.testing.assert_array_equal(cut_middle(network, images, stage='fc7/relu'), images)


def test_draw_maximised_draws_half_of_each_tower(network, tiny, tiny_dir, monkeypatch, tmp_path):
    monkeypatch.setattr(maximise, 'prepare_backend', lambda mesh: None)
    monkeypatch.setattr(maximise, 'STEPS', 2)
    asked = []

    def make(network, *, stage, channels, progress):
        asked.append((stage, channels))
        return np.zeros((len(channels), 224, 224, 3), np.uint8), np.ones((len(channels), 2))

    monkeypatch.setattr(maximise, 'maximise_channels', make)
    save_run(network, tmp_path / 'run', tiny, tiny_dir)
    source = NetworkArgs(workdir=[str(tmp_path / 'run')])
    text = draw_maximised(source, layer='conv2', count=5, figure=str(tmp_path / 'f.png'))
    assert asked == [('conv2/linear', [0, 1, 2, 8, 9, 10])]  # of 16 channels
    assert Image.open(tmp_path / 'f.png').size == (3 * 96 + 2 * 4, 2 * 96 + 2 * 4)
    assert text.startswith(f'{tmp_path}/f.png: 6 of 16 channels of conv2/linear; ')
    with pytest.raises(InputError, match='give --figure='):
        draw_maximised(source, layer='conv2', count=5, figure=None)
