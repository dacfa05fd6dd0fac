"""Reading run folders while they are written."""

import json

import pytest

from alexnet_jax.sweep.results import NOTE, load_progress, read_log_end, read_result


def train(step, loss):
    return json.dumps({'step': step, 'split': 'train', 'loss': loss, 'images_per_second': 10.0 * step}) + '\n'


def validation(step, error, protocol='centre'):
    return json.dumps({'step': step, 'split': 'validation', 'protocol': protocol, 'top1_error': error}) + '\n'


def test_load_progress_skips_half_a_line(tmp_path):
    file = tmp_path / 'metrics.jsonl'
    progress = load_progress(tmp_path)
    assert (progress.step, progress.loss, progress.error) == (0, None, None)
    file.write_text(train(10, 2.5) + validation(10, 0.8) + train(20, 1.5)[:15])
    progress = load_progress(tmp_path)
    assert (progress.step, progress.loss, progress.error, progress.images_per_second) == (10, 2.5, 0.8, 100.0)
    with file.open('a') as more:
        more.write(train(20, 1.5)[15:] + validation(20, 0.4) + validation(20, 0.3, 'ten_view'))
    progress = load_progress(tmp_path)
    assert (progress.step, progress.loss, progress.errors) == (20, 1.5, {10: 0.8, 20: 0.4})


def test_load_progress_ignores_looks_into_steps_and_tests_of_training_images(tmp_path):
    look = '{"step": 10, "split": "probe", "conv1/gradient": 0.5}\n'
    training = validation(10, 0.1).replace('validation', 'training_images')
    (tmp_path / 'metrics.jsonl').write_text(look + train(10, 2.5) + validation(10, 0.8) + training)
    progress = load_progress(tmp_path)
    assert (progress.loss, progress.errors) == (2.5, {10: 0.8})


def test_load_progress_follows_a_resumed_run(tmp_path):
    file = tmp_path / 'metrics.jsonl'
    file.write_text(train(10, 2.5) + validation(10, 0.8) + train(20, 1.5))
    assert load_progress(tmp_path).step == 20
    file.write_text(train(10, 2.5))
    progress = load_progress(tmp_path)
    assert (progress.step, progress.loss) == (10, 2.5)
    with file.open('a') as more:
        more.write(train(15, 2.0))
    progress = load_progress(tmp_path)
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
def test_read_result_returns_none_for_an_incomplete_file(tmp_path, text, whole):
    assert read_result(tmp_path) is None
    (tmp_path / 'result.json').write_text(text)
    assert (read_result(tmp_path) is not None) == whole


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('step 1\nerror: too bad\n' + NOTE + 'failed, exit code 1\n', ('failed, exit code 1', 'error: too bad')),
        ('step 1\n' + NOTE + 'stopped\nresuming\nstep 2\n', ('', 'step 2')),  # it went on
        ('a\n' + NOTE + 'stopped\n' + NOTE + 'stopped\n\n', ('stopped', 'a')),
        ('', ('', '')),
    ],
)
def test_read_log_end_returns_note_and_last_line(tmp_path, text, found):
    assert read_log_end(tmp_path / 'x.log') == ('', '')
    (tmp_path / 'x.log').write_text('x' * 10000 + '\n' + text if text else '')
    assert read_log_end(tmp_path / 'x.log') == found
