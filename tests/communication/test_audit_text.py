"""What the audit says beside its table: every axis of every reading, and what XLA sends for want of partitioning."""

import dataclasses

import pytest

from alexnet_jax.communication.audit import compare, describe_reading
from alexnet_jax.communication.messages import Message
from alexnet_jax.model.zoo import VARIANTS

# Of the plain network on 2x1, 128 images, as XLA 0.10.2 and 0.12.0.1 partition it: (layer, direction, side, channels).
GATHERS = [
    ('conv2', 'forward', 27, 96),
    ('conv4', 'forward', 13, 384),
    ('conv5', 'forward', 13, 384),
    ('conv5', 'backward', 13, 256),
    ('conv4', 'backward', 13, 384),
    ('conv2', 'backward', 27, 256),
]
AUTOMATIC = [
    Message(layer, 'all-gather', 'data', way, (128, side, side, channels), 'float32', 64 * side * side * channels * 4)
    for layer, way, side, channels in GATHERS
]
MEAN = Message('', 'all-reduce', 'data', 'backward', ((2,), (60_965_224,)), 'float32', 243_860_904)


def test_describe_reading_hides_no_axis():
    inner = dataclasses.replace(AUTOMATIC[0], axis='tower', layer='', bytes=5)
    assert describe_reading('automatic partitioning', [*AUTOMATIC, MEAN, inner]) == [
        'automatic partitioning: 8 collectives, 370,468,269 bytes received',
        "  over 'data': 7 collectives, 370,468,264 bytes: "
        '2 x all-gather at conv2, 2 x all-gather at conv4, 2 x all-gather at conv5, 1 x all-reduce at ?',
        "  over 'tower': 1 collectives, 5 bytes: 1 x all-gather at ?",
    ]
    assert describe_reading('traced program', []) == ['traced program: 0 collectives, 0 bytes received']


def test_compare_names_the_bytes_at_grouped_convolutions_and_their_cause():
    """126.6 MB a step: half of each array, of 4 bytes a number."""
    more, cause = compare(VARIANTS['paper'], [MEAN], [*AUTOMATIC, MEAN])
    assert more == 'shard_map receives 243,860,904 bytes, automatic partitioning 370,468,264: +126,607,360'
    assert cause.startswith(
        '  126,607,360 bytes (126.6 MB) of the latter are 6 all-gathers at the grouped convolutions'
    )
    assert '(conv2, conv4, conv5)' in cause and cause.endswith('https://github.com/openxla/xla/issues/47945')


@pytest.mark.parametrize(
    ('variant', 'layers'),
    [('no_exchange', 'conv2, conv3, conv4, conv5'), ('caffe_alexnet', 'conv2, conv4, conv5')],
)
def test_compare_counts_the_groups_of_the_network_at_hand(variant, layers):
    conv3 = dataclasses.replace(AUTOMATIC[1], layer='conv3')
    assert f'({layers})' in compare(VARIANTS[variant], [], [*AUTOMATIC, conv3])[1]


def test_compare_blames_no_network_without_groups_and_says_nothing_of_one_device():
    assert len(compare(VARIANTS['one_weird_trick'], [MEAN], [*AUTOMATIC, MEAN])) == 1
    assert len(compare(VARIANTS['half'], [MEAN], [*AUTOMATIC, MEAN])) == 1
    assert compare(VARIANTS['paper'], [], []) == []
