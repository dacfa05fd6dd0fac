"""The audit command's numbers, against counts and formulas by hand."""

import json

import cli
import pytest

# Of 'paper' at width 1/16: 6, 16, 24, 24, 16 channels, 256 and 256 units; 4 rows a device, half the channels, float32;
# the towers along a first axis of their own.
TOWER_MESSAGES = [
    ('conv3', 'forward', 'all-gather', [2, 4, 13, 13, 8], 4 * 13 * 13 * 8 * 4),
    ('fc6', 'forward', 'all-gather', [2, 4, 6, 6, 8], 4 * 6 * 6 * 8 * 4),
    ('fc7', 'forward', 'all-gather', [2, 4, 128], 4 * 128 * 4),
    ('fc8', 'forward', 'all-gather', [2, 4, 128], 4 * 128 * 4),
    ('fc7', 'backward', 'reduce-scatter', [2, 4, 128], 4 * 128 * 4),
    ('fc6', 'backward', 'reduce-scatter', [2, 4, 6, 6, 8], 4 * 6 * 6 * 8 * 4),
    ('conv3', 'backward', 'reduce-scatter', [2, 4, 13, 13, 8], 4 * 13 * 13 * 8 * 4),
]
# Kernels and biases that one tower's device holds, fc8 whole, for 10 classes.
HELD = (
    (11 * 11 * 3 + 1) * 3 + (5 * 5 * 3 + 1) * 8 + (3 * 3 * 16 + 1) * 12 + (3 * 3 * 12 + 1) * 12 + (3 * 3 * 12 + 1) * 8
) + ((6 * 6 * 16 + 1) * 128 + (256 + 1) * 128 + (256 + 1) * 10)


def audit(*options, cache):
    process = cli.run('audit', *options, '--json', cache=cache)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1]), process.stdout


def test_audit_parameters_counts_and_compiles_nothing(tmp_path):
    report, text = audit('--config=configs/two_device.py:imagenet2012', '--parameters', cache=tmp_path)
    assert report == {'devices': 2, 'parameters': 60_965_224, 'macs': 724_406_816}
    assert '60,965,224 parameters' in text
    assert list(tmp_path.rglob('*')) == []  # no compiled program in the cache


@pytest.mark.slow
def test_audit_on_2x2_finds_the_four_exchanges_and_one_mean(program_cache):
    report, text = audit(
        '--config=configs/two_device.py', '--config.variant=paper', '--config.width=0.0625', '--config.mesh=2,2',
        '--config.batch_size=8', '--classes=10', cache=program_cache,
    )  # fmt: skip
    assert set(report) == {'devices', 'parameters', 'macs', 'traced', 'compiled', 'automatic'}
    assert report['devices'] == 4
    assert report['parameters'] == 2 * (HELD - (256 + 1) * 10) + (256 + 1) * 10
    for messages in (report['traced'], report['compiled'], report['automatic']):
        for message in messages:
            assert set(message) == {'layer', 'op', 'axis', 'direction', 'shape', 'dtype', 'bytes'}
            assert message['op'] in {'all-gather', 'reduce-scatter', 'all-reduce'}
            assert message['axis'] in {'tower', 'data'}
    for name in ('traced', 'compiled'):
        tower = [
            (m['layer'], m['direction'], m['op'], m['shape'], m['bytes']) for m in report[name] if m['axis'] == 'tower'
        ]
        assert sorted(tower) == sorted(TOWER_MESSAGES), name
    (mean,) = [m for m in report['compiled'] if m['axis'] == 'data']
    assert mean['op'] == 'all-reduce'
    # Twice (2 - 1) / 2 of the gradients and of the two metrics, loss and error.
    assert mean['bytes'] == 4 * (HELD + 2)
    automatic = [m for m in report['automatic'] if m['axis'] == 'tower']
    assert len(automatic) > 2 * len(TOWER_MESSAGES)
    assert {'conv2', 'conv4', 'conv5'} <= {m['layer'] for m in automatic}
    assert "total over 'tower': 7 collectives, 58,624 bytes received" in text
    # All images and their gradients at conv2, conv4 and conv5, where the other pair's are gathered: 8 images, 4 bytes.
    others = 4 * 4 * (27 * 27 * (6 + 16) + 13 * 13 * (24 + 24 + 24 + 16))
    grouped = [m for m in report['automatic'] if m['layer'] in ('conv2', 'conv4', 'conv5') and m['op'] == 'all-gather']
    assert sum(m['bytes'] for m in grouped if m['axis'] == 'data') == others
    assert f'{sum(m["bytes"] for m in grouped):,} bytes' in text and 'openxla/xla/issues/47945' in text


def test_audit_refuses_a_wrong_option_in_one_line(program_cache):
    process = cli.run('audit', '--config=configs/two_device.py', '--config.widht=1', cache=program_cache)
    assert process.returncode == 1
    assert process.stderr == "error: unknown config key 'widht': did you mean 'width'?\n"


def test_audit_refuses_unknown_hardware_in_one_line(program_cache):
    options = ('--config=configs/hybrid.py', '--config.mesh=2,2', '--topology=v9:2x2')
    process = cli.run('audit', *options, cache=program_cache)
    assert (process.returncode, process.stdout) == (1, '')
    assert (
        process.stderr
        == "error: --topology=v9:2x2: no chip 'v9' is known, only v4, v5e, v5p, v6e, a100, h100, h200, b200, l4\n"
    )
