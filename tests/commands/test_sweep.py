"""The command, as a user starts it: what it checks, what it runs, and what it goes on with after kill -9."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys

import cli
import pytest
from sweep import programs

CONFIG = '--config=configs/one_device.py'


def sweep(*options, cache=None, path='', start=False):
    """`alexnet sweep OPTIONS...` at the checkout's top; modules are found in `path` too."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'alexnet_jax', 'sweep', *map(str, options)],
        cwd=cli.ROOT,
        env=cli.environment(cache or '/nonexistent') | {'PYTHONPATH': str(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if start:
        return process
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        (['--sweep.learning_rat=0.1', '--count'], "unknown config key 'learning_rat': did you mean 'learning_rate'?"),
        (['--sweep.width=0.5,9', '--count'], 'point width=9.0: config.width is 9.0: it must be at least 0.001'),
        (['--sweep.seed=0', '--sweep.seed=1', '--count'], '--sweep.seed is given twice'),
        (['--config.widht=1', '--sweep.seed=1', '--count'], "unknown config key 'widht': did you mean"),
        (['--sweep.seed=0,1'], '--workdir is missing'),
        (['--sweep.seed=0,1', '--search=optuna', '--count'], '--search makes its points up as it goes'),
        (['--sweep.seed=0,1', '--index=2', '--workdir=FOLDER'], '--index=2: there are 2 points, the last is 1'),
        (['--search=optuna', '--workdir=FOLDER'], 'nothing to search: give --sweep.KEY=LOW..HIGH'),
    ],
)
def test_sweep_reports_a_mistake_in_one_line(tmp_path, options, line):
    root = tmp_path / 'root'
    done = sweep(CONFIG, *(option.replace('FOLDER', str(root)) for option in options))
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert line in done.stderr
    assert not list(root.glob('*.log'))


def test_sweep_names_an_invalid_point_of_a_config_file(tmp_path):
    file = tmp_path / 'rates.py'
    file.write_text(
        'from alexnet_jax.training.config import make_config\n'
        'def get_config(dataset=None):\n    return make_config(dataset)\n'
        "def sweep():\n    return [{'momentum': 0.9}, {'momentun': 0.5, 'seed': 1}]\n"
    )
    done = sweep(f'--config={file}', '--count')
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == (
        "error: point momentun=0.5,seed=1: unknown config key 'momentun': did you mean 'momentum'?\n"
    )


def test_sweep_dry_run_lists_points_of_file_and_command_line(tmp_path):
    file = tmp_path / 'rates.py'
    file.write_text(
        'from alexnet_jax.training.config import make_config\n'
        'def get_config(dataset=None):\n    return make_config(dataset)\n'
        "def sweep():\n    return [{'learning_rate': 0.1}, {'variant': 'paper'}]\n"
    )
    options = (f'--config={file}:clothes', '--config.steps=5', '--sweep.seed=0,1', f'--workdir={tmp_path}/x')
    done = sweep(*options, '--dry_run')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        '0  learning_rate=0.1,seed=0',
        '1  learning_rate=0.1,seed=1',
        '2  variant=paper,seed=0',
        '3  variant=paper,seed=1',
        f'the first: python -m alexnet_jax.main --config={file}:clothes --config.steps=5 --config.learning_rate=0.1 '
        f'--config.seed=0 --workdir={tmp_path}/x/learning_rate=0.1,seed=0',
    ]
    assert not (tmp_path / 'x').exists()
    assert sweep(*options, '--count').stdout == '4\n'


@pytest.mark.slow
def test_sweep_trains_and_reports_a_run_that_diverges(tiny_dir, tmp_path, program_cache):
    root = tmp_path / 'rates'
    options = (
        *(f'{CONFIG}:tiny', f'--config.data_dir={tiny_dir}', '--config.width=0.01', '--config.steps=2'),
        *('--config.batch_size=8', '--config.variant=no_norm', '--sweep.learning_rate=0.001,1e38', '--sweep.seed=4'),
        f'--workdir={root}',
    )
    done = sweep(*options, '--jobs=2', '--report', cache=program_cache)
    assert done.returncode == 1, done.stderr
    good, bad = csv.DictReader((root / 'results.csv').read_text().splitlines())
    assert (good['run'], good['state'], good['step']) == ('learning_rate=0.001,seed=4', 'finished', '2')
    result = json.loads((root / 'learning_rate=0.001,seed=4' / 'result.json').read_text())
    assert float(good['centre_top1_error']) == result['centre']['top1_error']
    assert float(good['ten_view_loss']) == result['ten_view']['loss']
    assert (bad['run'], bad['state']) == ('learning_rate=1e+38,seed=4', 'failed, exit code 1')
    assert bad['last_line'].startswith('error: ')
    assert done.stdout.startswith((root / 'results.md').read_text() + '\n')
    assert 'learning_rate=0.001,seed=4' in (root / 'report.html').read_text()  # a folder with a comma in its name
    assert json.loads((root / 'learning_rate=0.001,seed=4' / 'config.json').read_text())['learning_rate'] == 0.001
    # As a task of a job array: this one is finished, and of it nothing changes.
    again = sweep(*options, '--index=0', cache=program_cache)
    assert (again.returncode, again.stderr) == (0, 'learning_rate=0.001,seed=4: finished before\n')


@pytest.mark.slow
def test_sweep_makes_a_seed_s_run_as_a_process_of_its_own_does_bit_for_bit(tiny_dir, tmp_path, program_cache):
    root, alone = tmp_path / 'seeds', tmp_path / 'alone'
    options = (
        *(f'{CONFIG}:tiny', f'--config.data_dir={tiny_dir}', '--config.width=0.01', '--config.steps=4'),
        *('--config.batch_size=8', '--config.variant=no_norm', '--config.evaluate_every=2', '--config.log_every=1'),
    )
    done = sweep(*options, '--sweep.seed=3,4', f'--workdir={root}', cache=program_cache)
    assert done.returncode == 0, done.stderr
    single = cli.run('train', *options, '--config.seed=4', f'--workdir={alone}', cache=program_cache)
    assert single.returncode == 0, single.stderr
    third, fourth, own = (read_numbers(folder) for folder in (root / 'seed=3', root / 'seed=4', alone))
    assert fourth == own
    assert third[0]['params_sha256'] != own[0]['params_sha256']
    # The second run of the process: nothing was imported or compiled for it.
    parts = json.loads((root / 'seed=4' / 'startup.json').read_text())['parts']
    assert parts['compile'] < 0.2, parts
    assert (root / 'seed=4' / 'run.json').read_text() == (alone / 'run.json').read_text()


def read_numbers(folder):
    """What a run found, whatever the time that it took: (result.json, metrics.jsonl, config.json)."""
    timed = ('images_per_second', 'data_wait', 'seconds', 'time')
    result = json.loads((folder / 'result.json').read_text())
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    found, *metrics = ({key: line[key] for key in line if key not in timed} for line in (result, *lines))
    return found, metrics, json.loads((folder / 'config.json').read_text())


@pytest.mark.slow
def test_sweep_finishes_after_kill_9(tiny_dir, tmp_path):
    """With a small program in place of training; docs/sweeps.md has it with training."""
    programs.write_program(tmp_path, {'seed=0': ['done'], 'seed=1': ['wait'], 'seed=2': ['wait', 'done']})
    root = tmp_path / 'root'
    options = (
        *(f'{CONFIG}:tiny', f'--config.data_dir={tiny_dir}', '--sweep.seed=0,1,2,3', f'--workdir={root}'),
        *('--jobs=2', '--module=program'),
    )
    first = sweep(*options, path=tmp_path, start=True)
    programs.wait_for(root / 'seed=1' / 'start0', root / 'seed=2' / 'start0')
    first.kill()
    first.communicate()
    os.kill(
        programs.load_starts(root / 'seed=2')[0]['pid'], signal.SIGKILL
    )  # one of the two dies with it, the other goes on
    second = sweep(*options, path=tmp_path, start=True)
    programs.wait_for(root / 'seed=3' / 'result.json')
    (tmp_path / 'go').write_text('')
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert 'seed=0: finished' in err and 'seed=1: external' in err
    assert [len(programs.load_starts(root / f'seed={seed}')) for seed in range(4)] == [1, 1, 2, 1]
    assert {row['state'] for row in csv.DictReader((root / 'results.csv').read_text().splitlines())} == {'finished'}


def test_sweep_index_replaces_the_process_by_the_run(tiny_dir, tmp_path):
    programs.write_program(tmp_path, {'seed=1': ['wait', 75]})
    root = tmp_path / 'root'
    options = (
        *(f'{CONFIG}:tiny', f'--config.data_dir={tiny_dir}', '--sweep.seed=0,1', f'--workdir={root}'),
        *('--module=program', '--index=1'),
    )
    task = sweep(*options, path=tmp_path, start=True)
    programs.wait_for(root / 'seed=1' / 'start0')
    twice = sweep(*options, path=tmp_path)
    assert (twice.returncode, twice.stderr) == (
        1,
        'error: seed=1 is being run by another process: wait for it, or stop it\n',
    )
    task.terminate()  # what SLURM does before a time limit, to this one process
    assert task.communicate(timeout=60)[1] == 'seed=1: running\nstart 0: wait\n'
    assert task.returncode == 76
    assert sweep(*options, path=tmp_path).returncode == 75
    assert not (root / 'seed=0').exists()


@pytest.mark.parametrize(('code', 'requeued'), [(0, False), (1, False), (75, True), (76, True), (143, True)])
def test_slurm_script_requeues_runs_that_can_be_resumed(tmp_path, code, requeued):
    """The script as it is, with small programs in place of SLURM's and of Python."""
    for name, text in (
        ('srun', 'exec "$@"'),
        ('scontrol', 'echo "scontrol $*"'),
        ('.venv/bin/python', f'echo "python $*"; exit {code}'),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/bash\n{text}\n')
        path.chmod(0o755)
    done = subprocess.run(
        ['bash', cli.ROOT / 'launch' / 'slurm_sweep.sbatch', '--config=x.py', '--workdir=a b'],
        cwd=tmp_path,
        env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_ARRAY_TASK_ID': '5', 'SLURM_JOB_ID': '77'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    lines = done.stdout.splitlines()
    assert lines[0] == 'python -m alexnet_jax sweep --config=x.py --workdir=a b --index=5'
    assert lines[1:] == ([f'ended with code {code}: requeued', 'scontrol requeue 77'] if requeued else [])


def test_slurm_script_refuses_a_plain_job():
    script = pathlib.Path(cli.ROOT / 'launch' / 'slurm_sweep.sbatch')
    done = subprocess.run(['bash', script], env={'PATH': os.environ['PATH']}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == 'error: submit this with --array=0-LAST, one task a point\n'
