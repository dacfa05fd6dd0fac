"""ROOT/sweep.json and the locks."""

import json
import multiprocessing
import pathlib
import subprocess
import sys

import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.sweep.plan import Plan, check_points
from alexnet_jax.sweep.record import SweepRecord, lock_point
from alexnet_jax.training.config import make_config


def make_plan(root, **settings):
    base = make_config(None)
    base.update(settings)
    return Plan(root, 'configs/two_device.py', (), base)


def record(root, seeds, **settings):
    plan = make_plan(root, **settings)
    return SweepRecord(plan, check_points(plan.base, [{'seed': seed} for seed in seeds]))


def test_record_keeps_points_of_earlier_starts(tmp_path):
    first = record(tmp_path / 'a', [0, 1])
    assert (first.new, list(first.points), first.previous_points) == (2, ['seed=0', 'seed=1'], {})
    second = record(tmp_path / 'a', [1, 2])
    assert (second.new, list(second.points)) == (1, ['seed=1', 'seed=2'])
    assert second.previous_points == {'seed=0': {'seed': 0}}
    third = record(tmp_path / 'a', [0, 1, 2])
    assert (third.new, list(third.points), third.previous_points) == (0, ['seed=0', 'seed=1', 'seed=2'], {})
    assert json.loads((tmp_path / 'a' / 'sweep.json').read_text())['points'] == third.points


def test_record_refuses_other_settings(tmp_path):
    record(tmp_path, [0])
    with pytest.raises(InputError, match=r'holds a sweep with config\.width 0\.25, now 0\.5: choose another'):
        record(tmp_path, [0], width=0.5)
    assert record(tmp_path, [0], data_dir='elsewhere').new == 0


def test_record_refuses_another_search(tmp_path):
    plan = make_plan(tmp_path)
    found = SweepRecord(plan, [], search={'width': '0.1..1.0'})
    found.add(check_points(plan.base, [{'width': 0.5}])[0])
    assert SweepRecord(plan, [], search={'width': '0.1..1.0'}).points == {'width=0.5': {'width': 0.5}}
    for other in ({'width': '0.1..2.0'}, None):
        with pytest.raises(InputError, match='holds a sweep with search'):
            SweepRecord(plan, [], search=other)


def test_record_refuses_a_folder_without_a_sweep(tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(InputError, match='is not empty and holds no sweep'):
        record(tmp_path, [0])


@pytest.mark.parametrize(
    'text',
    ['', '{}', '[]', '{"points": {}, "earlier": {}}', '{"points": [], "earlier": [], "settings": {}}'],
)
def test_record_refuses_a_damaged_file(tmp_path, text):
    (tmp_path / 'sweep.json').write_text(text)
    with pytest.raises(InputError, match='is damaged'):
        record(tmp_path, [0])


def test_record_refuses_an_unreadable_file(tmp_path):
    (tmp_path / 'sweep.json').mkdir()
    with pytest.raises(InputError, match=r'cannot read .*sweep\.json: Is a directory; mend that, or choose another'):
        record(tmp_path, [0])


def test_record_refuses_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot write to'):
        record(tmp_path / 'file', [0])


def _start(root):
    record(root, [0, 1])


def test_record_survives_concurrent_starts(tmp_path):
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        pool.map(_start, [tmp_path] * 8, chunksize=1)
    assert list(json.loads((tmp_path / 'sweep.json').read_text())['points']) == ['seed=0', 'seed=1']
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith('.half')] == []


def test_lock_point_lasts_as_long_as_the_inheriting_process(tmp_path):
    mine = lock_point(tmp_path, 'x')
    child = subprocess.Popen([sys.executable, '-S', '-c', 'input()'], stdin=subprocess.PIPE, stdout=mine)
    mine.close()  # as when the sweep is killed
    assert lock_point(tmp_path, 'x') is None
    assert lock_point(tmp_path, 'y') is not None
    child.communicate(b'\n', timeout=30)
    again = lock_point(tmp_path, 'x')
    assert again is not None
    again.close()
    assert pathlib.Path(tmp_path / 'x.log').exists()
