"""The search with Optuna, with a small program in place of training that has the errors its script says."""

import json
import os
import signal
import subprocess
import sys
import threading

import cli
import pytest
from extras.conftest import extra
from sweep import programs

from alexnet_jax.errors import InputError
from alexnet_jax.sweep.plan import Plan, format_options
from alexnet_jax.sweep.record import SweepRecord
from alexnet_jax.sweep.resources import Resources
from alexnet_jax.sweep.runner import Runner
from alexnet_jax.sweep.search import OptunaSearch, format_space, parse_space
from alexnet_jax.training.config import make_config

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
    (folder / 'non_finite.jsonl').write_text('{}')
    sys.exit(1)
if end != 'done':
    sys.exit(int(end))
test = {'loss': 0.5, 'top1_error': errors[-1], 'top5_error': 0.0, 'examples': 4}
(folder / 'result.json').write_text(json.dumps({'steps': 100, 'centre': test, 'ten_view': test}))
"""
TEXTS = {'learning_rate': 'log:1e-4..1e-1', 'batch_size': '16..64', 'mesh': '1,1;1,2', 'lighting': 'true,false'}


def make_search(root, base, space, *, trials):
    """Opens the search of `space` in `root`."""
    record = SweepRecord(Plan(root, 'x.py', (), base), [], search=format_space(space))
    return OptunaSearch(record, base, space, trials=trials)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Searches as the script says, up to so many trials; returns (exit code, runs, the study's trials)."""
    monkeypatch.setattr('alexnet_jax.sweep.runner._POLL_SECONDS', 0.02)
    monkeypatch.setattr('alexnet_jax.sweep.runner._REFRESH_SECONDS', 0.1)
    root = tmp_path / 'search'
    root.mkdir()
    (tmp_path / 'program.py').write_text(PROGRAM)
    base = make_config(None)

    def run(script, *, trials, resources=None):
        programs.write_script(tmp_path, {'others': [[0.6, 0.3], ['done']]} | script)
        source = make_search(root, base, parse_space(base, TEXTS), trials=trials)
        runner = Runner(
            root,
            source,
            command=lambda point: [
                *(sys.executable, '-S', str(tmp_path / 'program.py')),
                *(*format_options(point.overrides), f'--workdir={root / point.name}'),
            ],
            steps=lambda point: 100,
            resources=resources or [Resources()],
            report=lambda run: None,
            show=lambda runs: None,
        )
        code = runner.run()
        source._lock.close()  # as at the end of the process
        study = optuna.load_study(study_name='sweep', storage=f'sqlite:///{root}/optuna.db')
        return code, runner.runs, study.trials

    run.root = root
    return run


def names(trials):
    return [trial.state.name for trial in trials]


def test_search_reports_errors_to_optuna(search):
    code, runs, trials = search({'trial-0001': [[0.9, 0.1], ['done']]}, trials=3, resources=[Resources(), Resources()])
    assert (code, [run.point.name for run in runs]) == (0, ['trial-0000', 'trial-0001', 'trial-0002'])
    assert names(trials) == ['COMPLETE'] * 3
    assert [trial.value for trial in trials] == [0.3, 0.1, 0.3]
    assert trials[1].intermediate_values == {1: 0.9, 2: 0.1}  # tests are counted
    options = programs.load_starts(search.root / 'trial-0001')[0]['options']
    assert float(options['config.learning_rate']) == trials[1].params['learning_rate']
    assert options['config.mesh'].replace(',', 'x') == trials[1].params['mesh']


def test_search_prunes_a_run_worse_than_the_median(search):
    code, runs, trials = search({'trial-0005': [[0.5, 0.9], ['wait']]}, trials=7)
    assert code == 0
    assert names(trials) == [*['COMPLETE'] * 5, 'PRUNED', 'COMPLETE']
    assert runs[5].state == 'pruned'
    assert trials[5].intermediate_values == {1: 0.5, 2: 0.9}


def test_search_resumes_up_to_the_number_of_trials(search):
    search({}, trials=2)
    code, runs, trials = search({}, trials=3)
    assert (code, [run.point.name for run in runs], len(trials)) == (0, ['trial-0002'], 3)
    drawn = [trial.params['learning_rate'] for trial in trials]
    assert len(set(drawn)) == 3  # a seed that begins again would draw the first again
    assert search({}, trials=3)[1] == []


def test_search_resumes_a_stopped_trial(search):
    def send_signal():
        programs.wait_for(search.root / 'trial-0001' / 'start0')
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send_signal)
    thread.start()
    script = {'trial-0001': [[0.5], ['wait', 'done']]}
    code, _, trials = search(script, trials=3)
    thread.join()
    assert (code, names(trials)) == (76, ['COMPLETE', 'RUNNING'])
    code, runs, trials = search(script, trials=3)
    assert (code, names(trials)) == (0, ['COMPLETE'] * 3)
    assert [run.point.name for run in runs] == ['trial-0001', 'trial-0002']
    first, second = programs.load_starts(search.root / 'trial-0001')
    assert first == second


def test_search_prunes_diverged_and_fails_failed_trials(search):
    script = {'trial-0000': [[], ['diverge']], 'trial-0001': [[0.5], [1]], 'trial-0002': [[0.5], [143, 'done']]}
    code, _, trials = search(script, trials=3)
    assert (code, names(trials)) == (1, ['PRUNED', 'FAIL', 'RUNNING'])
    code, runs, trials = search(script, trials=3)  # what a signal ended can go on
    assert (code, names(trials), len(runs)) == (0, ['PRUNED', 'FAIL', 'COMPLETE'], 1)


def test_search_samples_within_the_space(tmp_path):
    base = make_config(None)
    source = make_search(tmp_path, base, parse_space(base, TEXTS), trials=30)
    points = list(iter(source.next_point, None))
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


def test_search_goes_on_after_a_refused_point(tmp_path, capsys):
    base = make_config(None)
    space = {'mesh': [(1, 1), (3, 1)], 'batch_size': [32]}  # 32 images do not divide over three
    source = make_search(tmp_path, base, space, trials=12)
    points = list(iter(source.next_point, None))
    lines = capsys.readouterr().err.splitlines()
    assert 0 < len(points) < 12 and len(points) + len(lines) == 12
    assert all('does not divide' in line for line in lines)


def test_search_refuses_a_second_process(tmp_path):
    base = make_config(None)
    space = parse_space(base, {'momentum': '0.1..0.2'})
    first = make_search(tmp_path, base, space, trials=1)
    with pytest.raises(InputError, match='another process searches in'):
        make_search(tmp_path, base, space, trials=1)
    first._lock.close()


def test_search_command_runs_trials_and_refuses_another_space(tiny_dir, tmp_path):
    (tmp_path / 'program.py').write_text(PROGRAM)
    programs.write_script(tmp_path, {'others': [[0.6, 0.3], ['done']], 'trial-0001': [[0.2], ['done']]})
    root = tmp_path / 'root'
    command = [
        *(
            sys.executable,
            '-m',
            'alexnet_jax',
            'sweep',
            '--config=configs/one_device.py:tiny',
            f'--config.data_dir={tiny_dir}',
        ),
        *(f'--workdir={root}', '--search=optuna', '--trials=3', '--sweep.momentum=0.1..0.9', '--module=program'),
    ]
    environment = cli.environment(tmp_path) | {'PYTHONPATH': str(tmp_path)}
    done = subprocess.run(command, cwd=cli.ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'trial-0002: finished, 30.00% validation error' in done.stderr and '[3 of 3]' in done.stderr
    record = json.loads((root / 'sweep.json').read_text())
    assert record['search'] == {'momentum': '0.1..0.9'}
    assert list(record['points']) == ['trial-0000', 'trial-0001', 'trial-0002']
    best = [line for line in done.stdout.splitlines() if line.startswith('|')][2]
    assert best == f'| {record["points"]["trial-0001"]["momentum"]} | 1 | 20.00 |  | 20.00 |'
    other = [option.replace('0.1..0.9', '0.1..0.8') for option in command]
    done = subprocess.run(other, cwd=cli.ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count('\n')) == (1, 1)
    assert 'holds a sweep with search' in done.stderr
