"""Tables from the folders of a sweep; expected values by hand."""

import csv
import io
import json

import pytest
from PIL import Image

from alexnet_jax.sweep.execute import write_results
from alexnet_jax.sweep.plan import Plan, check_points
from alexnet_jax.sweep.record import SweepRecord, lock_point
from alexnet_jax.sweep.results import choose_best_runs, format_mean, group_by_setting, load_rows
from alexnet_jax.training.config import make_config


def finish(folder, centre, ten_view):
    folder.mkdir()
    tests = {
        protocol: {'examples': 100, 'loss': 0.5, 'top1_error': error, 'top5_error': 0.0}
        for protocol, error in (('centre', centre), ('ten_view', ten_view))
    }
    (folder / 'result.json').write_text(json.dumps({'steps': 10, 'images_per_second': 9.0, **tests}))
    (folder / 'run.json').write_text(json.dumps({'commit': 'abc', 'devices': '2 x cpu (cpu)'}))


@pytest.fixture
def record(tmp_path):
    """Rates 0.1 (errors 10, 20, 30 %), 0.2 (4 and 6 %, one failed), 0.3 (one waits, one was begun)."""
    base = make_config(None)
    sweep = [{'learning_rate': rate, 'seed': seed} for rate in (0.1, 0.2) for seed in range(3)]
    sweep += [{'learning_rate': 0.3, 'seed': seed} for seed in range(2)]
    root = tmp_path / 'rates'
    record = SweepRecord(Plan(root, 'x.py', (), base), check_points(base, sweep))
    for name, centre, ten_view in (
        ('learning_rate=0.1,seed=0', 0.10, 0.11),
        ('learning_rate=0.1,seed=1', 0.20, 0.21),
        ('learning_rate=0.1,seed=2', 0.30, 0.31),
        ('learning_rate=0.2,seed=0', 0.04, 0.03),
        ('learning_rate=0.2,seed=1', 0.06, 0.05),
    ):
        finish(root / name, centre, ten_view)
    (root / 'learning_rate=0.2,seed=2.log').write_text('step 1\nerror: a | b\nalexnet sweep: failed, exit code 1\n')
    (root / 'learning_rate=0.3,seed=1').mkdir()
    return record


def test_load_rows_reads_states_from_folders_and_logs(record):
    states = {row.name: (row.state, row.last_line) for row in load_rows(record)}
    assert states['learning_rate=0.1,seed=0'] == ('finished', '')
    assert states['learning_rate=0.2,seed=2'] == ('failed, exit code 1', 'error: a | b')
    assert states['learning_rate=0.3,seed=0'] == ('waiting', '')
    assert states['learning_rate=0.3,seed=1'] == ('left unfinished', '')
    held = lock_point(record.root, 'learning_rate=0.3,seed=1')
    assert {row.name: row.state for row in load_rows(record)}['learning_rate=0.3,seed=1'] == 'running'
    held.close()


def test_group_by_setting_sorts_by_mean(record):
    found = [(one.overrides, one.get_errors(), len(one.rows)) for one in group_by_setting(load_rows(record))]
    assert found == [
        ({'learning_rate': 0.2}, [0.04, 0.06], 3),
        ({'learning_rate': 0.1}, [0.10, 0.20, 0.30], 3),
        ({'learning_rate': 0.3}, [], 2),
    ]


def test_choose_best_runs_takes_one_of_each_setting(record):
    rows = load_rows(record)
    assert choose_best_runs(rows, 6) == ['learning_rate=0.2,seed=0', 'learning_rate=0.1,seed=0']
    assert choose_best_runs(rows, 1) == ['learning_rate=0.2,seed=0']


def test_format_mean_divides_by_n_minus_1():
    assert format_mean([0.1, 0.2, 0.3]) == '20.00 ± 10.00'
    assert format_mean([0.04, 0.06]) == '5.00 ± 1.41'  # of a sample: divided by n - 1
    assert format_mean([0.5]) == '50.00'
    assert format_mean([]) == ''


def test_write_results_formats_the_table(record):
    text = write_results(record, title='rates', command='alexnet sweep ...')
    assert (record.root / 'results.md').read_text() == text
    lines = text.splitlines()
    assert lines[:5] == ['# rates', '', '    alexnet sweep ...', '', '5 of 8 runs are finished.']
    assert [line for line in lines if line.startswith('|')] == [
        '| learning_rate | n | centre | best to worst | ten-view |',
        '| --- | --- | --- | --- | --- |',
        '| 0.2 | 2 of 3 | 5.00 ± 1.41 | 4.00 to 6.00 | 4.00 ± 1.41 |',
        '| 0.1 | 3 | 20.00 ± 10.00 | 10.00 to 30.00 | 21.00 ± 10.00 |',
        '| 0.3 | 0 of 2 |  |  |  |',
        '| not finished | state | step | last line |',
        '|---|---|---|---|',
        r'| learning_rate=0.2,seed=2 | failed, exit code 1 | 0 | error: a \| b |',
        '| learning_rate=0.3,seed=0 | waiting | 0 |  |',
        '| learning_rate=0.3,seed=1 | left unfinished | 0 |  |',
    ]
    assert 'Commit: abc.' in text and 'Devices: 2 x cpu (cpu).' in text and 'Steps: 10.' in text


def test_write_results_writes_a_csv_line_for_each_run(record):
    write_results(record, title='rates', command='')
    lines = list(csv.DictReader(io.StringIO((record.root / 'results.csv').read_text())))
    assert len(lines) == 8
    first, failed = lines[0], lines[5]
    assert (first['run'], first['learning_rate'], first['seed']) == ('learning_rate=0.1,seed=0', '0.1', '0')
    assert (first['centre_top1_error'], first['ten_view_top1_error'], first['asked']) == ('0.1', '0.11', 'now')
    assert (failed['state'], failed['centre_top1_error'], failed['last_line']) == (
        'failed, exit code 1',
        '',
        'error: a | b',
    )


def test_write_results_marks_points_of_earlier_starts(record):
    base = make_config(None)
    points = check_points(base, [{'learning_rate': 0.1, 'seed': seed} for seed in range(3)])
    text = write_results(SweepRecord(Plan(record.root, 'x.py', (), base), points), title='', command='')
    assert '| 0.2 (earlier) | 2 of 3 | 5.00 ± 1.41 |' in text
    assert '| 0.1 | 3 | 20.00 ± 10.00 |' in text


def test_write_results_draws_no_picture_without_a_finished_run(tmp_path):
    base = make_config(None)
    record = SweepRecord(Plan(tmp_path / 'a', 'x.py', (), base), check_points(base, [{'seed': 0}, {'seed': 1}]))
    text = write_results(record, title='a', command='')
    assert '| base | 0 of 2 |' in text
    assert 'results.png' not in text and not (record.root / 'results.png').exists()


@pytest.mark.parametrize('rates', [(0.1, 0.2), (0.01, 0.1, 1.0)])
def test_write_results_draws_a_picture(tmp_path, rates):
    base = make_config(None)
    points = check_points(base, [{'learning_rate': rate, 'momentum': m} for rate in rates for m in (0.0, 0.9)])
    record = SweepRecord(Plan(tmp_path / 'a', 'x.py', (), base), points)
    for i, point in enumerate(points):
        finish(record.root / point.name, 0.1 * i, 0.0)
    write_results(record, title='a', command='')
    with Image.open(record.root / 'results.png') as image:
        assert image.width == 770
        assert len(image.convert('RGB').getcolors(1 << 20)) > 50
