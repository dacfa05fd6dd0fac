"""ROOT/sweep.json and the locks."""

import json
import multiprocessing
import pathlib
import subprocess
import sys

import pytest

from alexnet_jax import InputError
from alexnet_jax.sweeping.plan import Plan, check
from alexnet_jax.sweeping.record import Record, lock
from alexnet_jax.training.config import recipe


def plan_of(**settings):
    base = recipe(None)
    base.update(settings)
    return Plan('configs/two_device.py', (), base)


def record(root, seeds, **settings):
    plan = plan_of(**settings)
    return Record(root, plan, check(plan.base, [{'seed': seed} for seed in seeds]))


def test_points_come_and_go_and_are_remembered(tmp_path):
    first = record(tmp_path / 'a', [0, 1])
    assert (first.new, list(first.points), first.earlier) == (2, ['seed=0', 'seed=1'], {})
    second = record(tmp_path / 'a', [1, 2])
    assert (second.new, list(second.points)) == (1, ['seed=1', 'seed=2'])
    assert second.earlier == {'seed=0': {'seed': 0}}
    third = record(tmp_path / 'a', [0, 1, 2])
    assert (third.new, list(third.points), third.earlier) == (0, ['seed=0', 'seed=1', 'seed=2'], {})
    assert json.loads((tmp_path / 'a' / 'sweep.json').read_text())['points'] == third.points


def test_other_settings_are_another_sweep(tmp_path):
    record(tmp_path, [0])
    with pytest.raises(InputError, match=r'holds a sweep with config\.width 0\.25, now 0\.5: choose another'):
        record(tmp_path, [0], width=0.5)
    assert record(tmp_path, [0], data_dir='elsewhere').new == 0


def test_a_search_is_not_a_sweep_and_keeps_its_ranges(tmp_path):
    plan = plan_of()
    found = Record(tmp_path, plan, [], search={'width': '0.1..1.0'})
    found.add(check(plan.base, [{'width': 0.5}])[0])
    assert Record(tmp_path, plan, [], search={'width': '0.1..1.0'}).points == {'width=0.5': {'width': 0.5}}
    for other in ({'width': '0.1..2.0'}, None):
        with pytest.raises(InputError, match='holds a sweep with search'):
            Record(tmp_path, plan, [], search=other)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(InputError, match='is not empty and holds no sweep'):
        record(tmp_path, [0])


@pytest.mark.parametrize('text', ['', '{}', '[]', '{"points": {}, "earlier": {}}'])
def test_a_damaged_record_is_one_line(tmp_path, text):
    (tmp_path / 'sweep.json').write_text(text)
    with pytest.raises(InputError, match='is damaged'):
        record(tmp_path, [0])


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot write to'):
        record(tmp_path / 'file', [0])


def _start(root):
    record(root, [0, 1])


def test_tasks_that_start_together_lose_nothing(tmp_path):
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        pool.map(_start, [tmp_path] * 8, chunksize=1)
    assert list(json.loads((tmp_path / 'sweep.json').read_text())['points']) == ['seed=0', 'seed=1']
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith('.half')] == []


def test_a_lock_lives_as_long_as_the_process_that_has_it(tmp_path):
    mine = lock(tmp_path, 'x')
    child = subprocess.Popen([sys.executable, '-S', '-c', 'input()'], stdin=subprocess.PIPE, stdout=mine)
    mine.close()  # as when the sweep is killed
    assert lock(tmp_path, 'x') is None
    assert lock(tmp_path, 'y') is not None
    child.communicate(b'\n', timeout=30)
    again = lock(tmp_path, 'x')
    assert again is not None
    again.close()
    assert pathlib.Path(tmp_path / 'x.log').exists()
