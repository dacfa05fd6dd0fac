"""What is read from run folders while they are written."""

import json

import pytest

from alexnet_jax.sweeping.progress import MARK, Progress, ended_as, result_of


def train(step, loss):
    return json.dumps({'step': step, 'split': 'train', 'loss': loss, 'images_per_second': 10.0 * step}) + '\n'


def validation(step, error, protocol='centre'):
    return json.dumps({'step': step, 'split': 'validation', 'protocol': protocol, 'top1_error': error}) + '\n'


def test_only_whole_lines_count_and_only_new_ones_are_read(tmp_path):
    file, progress = tmp_path / 'metrics.jsonl', Progress(tmp_path)
    progress.refresh()
    assert (progress.step, progress.loss, progress.error) == (0, None, None)
    file.write_text(train(10, 2.5) + validation(10, 0.8) + train(20, 1.5)[:15])
    progress.refresh()
    assert (progress.step, progress.loss, progress.error, progress.images_per_second) == (10, 2.5, 0.8, 100.0)
    with file.open('a') as more:
        more.write(train(20, 1.5)[15:] + validation(20, 0.4) + validation(20, 0.3, 'ten_view'))
    progress.refresh()
    assert (progress.step, progress.loss, progress.errors) == (20, 1.5, {10: 0.8, 20: 0.4})


def test_a_resumed_run_writes_its_last_lines_again(tmp_path):
    file, progress = tmp_path / 'metrics.jsonl', Progress(tmp_path)
    file.write_text(train(10, 2.5) + validation(10, 0.8) + train(20, 1.5))
    progress.refresh()
    file.write_text(train(10, 2.5))
    progress.refresh()
    assert (progress.step, progress.loss) == (10, 2.5)
    with file.open('a') as more:
        more.write(train(15, 2.0))
    progress.refresh()
    assert (progress.step, progress.loss) == (15, 2.0)


@pytest.mark.parametrize(
    ('text', 'whole'),
    [
        ('{"steps": 2, "centre": {"loss": 1}, "ten_view": {"loss": 1}}', True),
        ('{"steps": 2, "centre": {"loss": 1}, "ten', False),
        ('{"steps": 2, "centre": {"loss": 1}}', False),
        ('[]', False),
        ('', False),
    ],
)
def test_a_result_is_whole_or_none(tmp_path, text, whole):
    assert result_of(tmp_path) is None
    (tmp_path / 'result.json').write_text(text)
    assert (result_of(tmp_path) is not None) == whole


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('step 1\nerror: too bad\n' + MARK + 'failed, exit code 1\n', ('failed, exit code 1', 'error: too bad')),
        ('step 1\n' + MARK + 'stopped\nresuming\nstep 2\n', ('', 'step 2')),  # it went on
        ('a\n' + MARK + 'stopped\n' + MARK + 'stopped\n\n', ('stopped', 'a')),
        ('', ('', '')),
    ],
)
def test_the_end_of_a_log(tmp_path, text, found):
    assert ended_as(tmp_path / 'x.log') == ('', '')
    (tmp_path / 'x.log').write_text('x' * 10000 + '\n' + text if text else '')
    assert ended_as(tmp_path / 'x.log') == found
