"""A run that looks into its steps: the same run, bit for bit, with more lines in its log."""

import json

import pytest
from run.short_runs import train

pytestmark = pytest.mark.slow


def read_lines(workdir, split):
    return [line for line in map(json.loads, (workdir / 'metrics.jsonl').open()) if line['split'] == split]


def test_probe_every_logs_looks_and_leaves_the_run_as_it_is(tiny, tmp_path):
    values = {'steps': 5, 'evaluate_every': 5, 'checkpoint_every': 5, 'log_every': 1}
    for name, every in (('plain', 0), ('probed', 2)):
        train(tiny, tmp_path / name, probe_every=every, **values)
    hashes = {
        json.loads((tmp_path / name / 'result.json').read_text())['params_sha256'] for name in ('plain', 'probed')
    }
    assert len(hashes) == 1
    assert read_lines(tmp_path / 'plain', 'probe') == []
    losses = [[line['loss'] for line in read_lines(tmp_path / name, 'train')] for name in ('plain', 'probed')]
    assert losses[0] == losses[1] and len(losses[0]) == 5
    looks = read_lines(tmp_path / 'probed', 'probe')
    assert [line['step'] for line in looks] == [1, 2, 4]
    layers = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
    for line in looks:
        assert all(line[f'{layer}/gradient'] > 0 and 0 < line[f'{layer}/update'] < 1 for layer in layers)
        assert all(0 <= line[f'{layer}/dead'] < 1 for layer in layers[:-1]) and 'fc8/dead' not in line
    events = b''.join(path.read_bytes() for path in (tmp_path / 'probed/tensorboard').iterdir())
    assert b'probe/conv1/gradient' in events
