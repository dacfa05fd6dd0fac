"""The search with Optuna, with a small program in place of training that has the errors its script says."""

import json
import os
import signal
import subprocess
import sys
import threading

import commands
import pytest
from extras.conftest import extra
from sweeping import programs

from alexnet_jax import InputError
from alexnet_jax.sweeping.runner import Runner
from alexnet_jax.sweeping.search import Search, space_of
from alexnet_jax.sweeping.shares import Share
from alexnet_jax.training.config import recipe

optuna = extra('optuna')

# script.json has {trial: [its tests' errors, how each start ends]}: a code, 'done', or 'wait' for SIGTERM.
PROGRAM = """
import json, pathlib, signal, sys, time
options = dict(argument[2:].split('=', 1) for argument in sys.argv[1:])
folder = pathlib.Path(options['workdir'])
script = json.loads((folder.parent.parent / 'script.json').read_text())
errors, ends = script.get(folder.name, script['others'])
folder.mkdir(exist_ok=True)
start = len(list(folder.glob('start*')))
end = ends[min(start, len(ends) - 1)]
if end == 'wait':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(76))
with (folder / 'metrics.jsonl').open('w') as file:
    for i, error in enumerate(errors):
        line = {'step': 4 * (i + 1), 'split': 'validation', 'protocol': 'centre', 'top1_error': error}
        file.write(json.dumps(line) + chr(10))
(folder / f'start{start}').write_text(json.dumps({'options': options}))
if end == 'wait':
    time.sleep(60)
if end == 'diverge':
    (folder / 'bad_numbers.jsonl').write_text('{}')
    sys.exit(1)
if end != 'done':
    sys.exit(int(end))
test = {'loss': 0.5, 'top1_error': errors[-1], 'top5_error': 0.0, 'examples': 4}
(folder / 'result.json').write_text(json.dumps({'steps': 100, 'centre': test, 'ten_view': test}))
"""
TEXTS = {'learning_rate': 'log:1e-4..1e-1', 'batch_size': '16..64', 'mesh': '1,1;1,2', 'lighting': 'true,false'}


@pytest.fixture
def search(tmp_path):
    """Searches as the script says, up to so many trials; returns (exit code, runs, the study's trials)."""
    root = tmp_path / 'search'
    root.mkdir()
    (tmp_path / 'program.py').write_text(PROGRAM)
    base = recipe(None)

    def run(script, *, trials, shares=None):
        programs.rewrite(tmp_path, {'others': [[0.6, 0.3], ['done']]} | script)
        source = Search(root, base, space_of(base, TEXTS), trials=trials, say=print, started=lambda point: None)
        runner = Runner(
            root,
            source,
            command=lambda point: [
                *(sys.executable, '-S', str(tmp_path / 'program.py')),
                *(*point.options, f'--workdir={root / point.name}'),
            ],
            steps=lambda point: 100,
            shares=shares or [Share()],
            report=lambda run: None,
            show=lambda runs: None,
        )
        code = runner.run()
        source._held.close()  # as at the end of the process
        study = optuna.load_study(study_name='sweep', storage=f'sqlite:///{root}/optuna.db')
        return code, runner.runs, study.trials

    run.root = root
    return run


def names(trials):
    return [trial.state.name for trial in trials]


def test_trials_are_runs_and_their_errors_are_what_optuna_learns(search):
    code, runs, trials = search({'trial-0001': [[0.9, 0.1], ['done']]}, trials=3, shares=[Share(), Share()])
    assert (code, [run.point.name for run in runs]) == (0, ['trial-0000', 'trial-0001', 'trial-0002'])
    assert names(trials) == ['COMPLETE'] * 3
    assert [trial.value for trial in trials] == [0.3, 0.1, 0.3]
    assert trials[1].intermediate_values == {1: 0.9, 2: 0.1}  # tests are counted
    options = programs.starts(search.root / 'trial-0001')[0]['options']
    assert float(options['config.learning_rate']) == trials[1].params['learning_rate']
    assert options['config.mesh'].replace(',', 'x') == trials[1].params['mesh']


def test_a_run_worse_than_the_median_is_stopped(search):
    code, runs, trials = search({'trial-0005': [[0.5, 0.9], ['wait']]}, trials=7)
    assert code == 0
    assert names(trials) == [*['COMPLETE'] * 5, 'PRUNED', 'COMPLETE']
    assert runs[5].state == 'pruned'
    assert trials[5].intermediate_values == {1: 0.5, 2: 0.9}


def test_the_same_search_again_goes_on_to_the_same_number(search):
    search({}, trials=2)
    code, runs, trials = search({}, trials=3)
    assert (code, [run.point.name for run in runs], len(trials)) == (0, ['trial-0002'], 3)
    drawn = [trial.params['learning_rate'] for trial in trials]
    assert len(set(drawn)) == 3  # a seed that begins again would draw the first again
    assert search({}, trials=3)[1] == []


def test_a_trial_that_was_stopped_goes_on_as_it_was(search):
    def tell():
        programs.wait_for(search.root / 'trial-0001' / 'start0')
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=tell)
    thread.start()
    script = {'trial-0001': [[0.5], ['wait', 'done']]}
    code, _, trials = search(script, trials=3)
    thread.join()
    assert (code, names(trials)) == (76, ['COMPLETE', 'RUNNING'])
    code, runs, trials = search(script, trials=3)
    assert (code, names(trials)) == (0, ['COMPLETE'] * 3)
    assert [run.point.name for run in runs] == ['trial-0001', 'trial-0002']
    first, second = programs.starts(search.root / 'trial-0001')
    assert first == second


def test_what_diverges_is_learned_from_and_what_fails_is_not(search):
    script = {'trial-0000': [[], ['diverge']], 'trial-0001': [[0.5], [1]], 'trial-0002': [[0.5], [143, 'done']]}
    code, _, trials = search(script, trials=3)
    assert (code, names(trials)) == (1, ['PRUNED', 'FAIL', 'RUNNING'])
    code, runs, trials = search(script, trials=3)  # what a signal ended can go on
    assert (code, names(trials), len(runs)) == (0, ['PRUNED', 'FAIL', 'COMPLETE'], 1)


def test_points_stay_in_their_space(tmp_path):
    base = recipe(None)
    source = Search(tmp_path, base, space_of(base, TEXTS), trials=30, say=print, started=lambda point: None)
    points = list(iter(source.next, None))
    assert len(points) == 30
    for point in points:
        assert 1e-4 <= point.overrides['learning_rate'] <= 1e-1
        assert 16 <= point.overrides['batch_size'] <= 64
        assert {key: type(value) for key, value in point.overrides.items()} == {
            'learning_rate': float,
            'batch_size': int,
            'mesh': tuple,
            'lighting': bool,
        }
    assert {point.config.mesh for point in points} == {(1, 1), (1, 2)}
    assert min(point.overrides['learning_rate'] for point in points) < 1e-3  # evenly in the logarithm


def test_a_point_that_the_config_refuses_is_no_end(tmp_path):
    base, said = recipe(None), []
    space = {'mesh': [(1, 1), (3, 1)], 'batch_size': [32]}  # 32 images do not divide over three
    source = Search(tmp_path, base, space, trials=12, say=said.append, started=lambda point: None)
    points = list(iter(source.next, None))
    assert 0 < len(points) < 12 and len(points) + len(said) == 12
    assert all('does not divide' in line for line in said)


def test_one_search_at_a_time(tmp_path):
    base = recipe(None)
    space = space_of(base, {'momentum': '0.1..0.2'})
    first = Search(tmp_path, base, space, trials=1, say=print, started=print)
    with pytest.raises(InputError, match='another process searches in'):
        Search(tmp_path, base, space, trials=1, say=print, started=print)
    first._held.close()


def test_the_command(tiny_dir, tmp_path):
    (tmp_path / 'program.py').write_text(PROGRAM)
    programs.rewrite(tmp_path, {'others': [[0.6, 0.3], ['done']], 'trial-0001': [[0.2], ['done']]})
    root = tmp_path / 'root'
    command = [
        *(sys.executable, '-m', 'launch.sweep', '--config=configs/one_device.py:tiny', f'--config.data_dir={tiny_dir}'),
        *(f'--workdir={root}', '--search=optuna', '--trials=3', '--sweep.momentum=0.1..0.9', '--module=program'),
    ]
    environment = commands.environment(tmp_path) | {'PYTHONPATH': str(tmp_path)}
    done = subprocess.run(command, cwd=commands.ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'trial-0002: finished, 30.00% validation error' in done.stderr and '[3 of 3]' in done.stderr
    record = json.loads((root / 'sweep.json').read_text())
    assert record['search'] == {'momentum': '0.1..0.9'}
    assert list(record['points']) == ['trial-0000', 'trial-0001', 'trial-0002']
    best = [line for line in done.stdout.splitlines() if line.startswith('|')][2]
    assert best == f'| {record["points"]["trial-0001"]["momentum"]} | 1 | 20.00 |  | 20.00 |'
    other = [option.replace('0.1..0.9', '0.1..0.8') for option in command]
    done = subprocess.run(other, cwd=commands.ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count('\n')) == (1, 1)
    assert 'holds a sweep with search' in done.stderr
