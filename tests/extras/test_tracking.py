"""Real trackers: a run that is killed and goes on is one run there, every step once, with metrics.jsonl's numbers."""

import json
import os
import pathlib
import struct
import subprocess
import sys
import time

import cli
import pytest
from extras.conftest import extra

STEPS = 20
OPTIONS = (
    *('--config=configs/two_device.py:tiny', '--config.width=0.03125', '--config.batch_size=8', '--config.log_every=2'),
    *(f'--config.steps={STEPS}', '--config.checkpoint_every=8', '--config.evaluate_every=5', '--config.seed=3'),
)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch):
    for name in [name for name in os.environ if name.startswith(('WANDB_', 'MLFLOW_', 'TRACKIO_'))]:
        monkeypatch.delenv(name)


def of_mlflow(workdir):
    """[(run, status, parameters, {name: [(step, value)]})] of all runs, by mlflow's client."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f'sqlite:///{workdir}/mlflow.db')
    (experiment,) = [e for e in client.search_experiments() if e.name == 'alexnet_jax']
    return [
        (
            run.info.run_id,
            run.info.status,
            run.data.params,
            {n: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, n)] for n in run.data.metrics}
            | {name: [(STEPS, text)] for name, text in run.data.tags.items() if name.startswith('result/')},
        )
        for run in client.search_runs([experiment.experiment_id])
    ]


def of_trackio(workdir):
    """As of_mlflow, by trackio's own API and store in a process of its own: it reads TRACKIO_DIR when imported."""
    script = (
        'import json, trackio; from trackio.sqlite_storage import SQLiteStorage as S; print(json.dumps('
        '[(r.name, r.config, S.get_logs("alexnet_jax", r.name)) for r in trackio.Api().runs("alexnet_jax")]))'
    )
    environment = os.environ | {'TRACKIO_DIR': str(workdir / 'trackio')}
    out = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=True)
    found = []
    for run, parameters, entries in json.loads(out.stdout.splitlines()[-1]):
        series = {}
        for entry in entries:
            for name in set(entry) - {'step', 'timestamp'}:
                series.setdefault(name, []).append((entry['step'], entry[name]))
        found.append((run, 'FINISHED', parameters, series))
    return found


def log_records(path):
    """Records in LevelDB's log format: blocks of 32 KiB, of checksum, length, part (1 whole, 4 last) and bytes."""
    data, place, whole = path.read_bytes(), 7, b''  # wandb's own header
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, part = struct.unpack('<HB', data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if part in (1, 4):
            yield whole
            whole = b''


def of_wandb(workdir):
    """As of_mlflow, from what `wandb sync` would send, process after process, by wandb's message types."""
    from wandb.proto.wandb_internal_pb2 import Record

    series, runs, parameters = {}, set(), {}
    for path in sorted(workdir.glob('wandb/offline-run-*/*.wandb')):
        assert path.parent.name.endswith(f'-{path.stem.removeprefix("run-")}')
        for record in map(Record.FromString, log_records(path)):
            if record.HasField('run'):
                runs.add((record.run.run_id, record.run.project))
                parameters |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            items = {item.key or '/'.join(item.nested_key): item.value_json for item in record.history.item}
            step = int(items.get('_step', record.history.step.num))
            for name, value in items.items():
                if not name.startswith('_'):
                    series.setdefault(name, []).append((step, json.loads(value)))
    return [(run, 'FINISHED', parameters, series) for run, project in runs if project == 'alexnet_jax']


def lines(workdir):
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ('name', 'read'),
    [('mlflow', of_mlflow), ('wandb', of_wandb), ('trackio', of_trackio)],
    ids=['mlflow', 'wandb', 'trackio'],
)
def test_a_killed_run_goes_on_as_the_same_one(name, read, tiny_dir, tmp_path, program_cache):
    extra(name)
    workdir = tmp_path / 'run'
    options = (*OPTIONS, f'--config.data_dir={tiny_dir}', f'--config.tracking={name}', f'--workdir={workdir}', '--json')
    process = cli.start('train', *options, cache=program_cache)
    deadline = time.monotonic() + 300
    while not any(line['step'] >= 12 for line in lines(workdir)):  # the checkpoint is at 8
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    began = json.loads((workdir / 'tracking.json').read_text())[name]['run']

    resumed = cli.run('train', *options, cache=program_cache)
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout)  # nothing else on standard output
    assert 'resuming from step 8' in resumed.stderr
    ((run, status, parameters, series),) = read(workdir)
    assert (run, status) == (began, 'FINISHED')
    assert float(parameters['learning_rate']) == 0.01
    assert str(parameters['variant']) == 'paper'
    for group, split, protocol in [('train', 'train', None), ('validation_centre', 'validation', 'centre')]:
        for figure in ('loss', 'top1_error'):
            expected = [
                (line['step'], line[figure])
                for line in lines(workdir)
                if line['split'] == split and line.get('protocol') == protocol
            ]
            assert len(expected) == {'train': 12, 'validation': 4}[split]  # every 2, and before each test at 5 and 15
            assert series[f'{group}/{figure}'] == expected, (group, figure)
    assert series['result/ten_view/top1_error'] == [(STEPS, result['ten_view']['top1_error'])]
    assert series['result/params_sha256'] == [(STEPS, result['params_sha256'])]

    again = cli.run('train', *options, cache=program_cache)  # of a finished run
    assert again.returncode == 0, again.stderr
    assert read(workdir)[0][3] == series
