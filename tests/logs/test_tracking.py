"""What a run tells its tracker, with a tracker of our own in the place of wandb, mlflow and trackio."""

import json
import sys
import threading
from importlib import util
from typing import ClassVar

import cli
import pytest
from builders import config_with, run_with

from alexnet_jax.errors import InputError, Interrupted
from alexnet_jax.logs import tracking
from alexnet_jax.logs.logger import RunLogger
from alexnet_jax.logs.tracking import Tracking, check_tracker
from alexnet_jax.training.config import TRACKING


class Fake:
    """Keeps what it is told in a list that outlives it, as a tracker's store does."""

    store: ClassVar[dict] = {}
    breaks_at = None  # the step whose record it does not take
    can_be_asked = True

    def __init__(self, run, workdir, settings):
        if self.breaks_at == 'start':
            raise ConnectionError('no route\nto host')
        self.run = run or f'run{len(self.store)}'
        kept = self.store.setdefault(self.run, {'settings': settings, 'records': [], 'endings': []})
        self.records, self.endings = kept['records'], kept['endings']
        print('a greeting')  # as trackers do

    def get_last_steps(self):
        if not self.can_be_asked:
            return None
        return {name.split('/')[0]: step for step, values in self.records for name in values}

    def log(self, step, values):
        if step == self.breaks_at:
            raise ConnectionError('gone')
        self.records.append((step, values))

    def close(self, ending):
        self.endings.append(ending)


@pytest.fixture(params=[True, False], ids=['store is asked', 'tracking.json is'])
def fake(request, monkeypatch):
    """The class, with an empty store, under the name of mlflow."""
    kind = type('Fresh', (Fake,), {'store': {}, 'can_be_asked': request.param})
    monkeypatch.setitem(tracking.TRACKERS, 'mlflow', kind)
    return kind


def run(workdir, steps, *, every=5, tests=(), scale=1.0):
    """A run's records of `steps`, through a logbook; what it says of its tracker."""
    workdir.mkdir(exist_ok=True)
    said = []
    start = steps[0] - 1
    made = run_with(tracking='mlflow')
    with (
        Tracking(made.config, workdir, start=start) as track,
        RunLogger(made, workdir, start=start, track=track.log) as log,
    ):
        track.info = said.append
        for step in steps:
            metrics = {'loss': scale * step, 'top1_error': 0.5, 'learning_rate': 0.1, 'data_wait': 0.0}
            if step % every == 0:
                log.log_training(step, metrics, images_per_second=10.0)
            if step in tests:
                figures = {'loss': 2.0, 'top1_error': 0.5, 'top5_error': 0.1, 'examples': 3}
                log.log_test(step, 'centre', figures, seconds=1.0)
    return said


def losses(kind, name='train/loss'):
    ((_, kept),) = kind.store.items()
    return [(step, values[name]) for step, values in kept['records'] if name in values]


def test_tracking_sends_the_records_the_settings_and_the_result(fake, tmp_path, capsys):
    made = run_with(tracking='mlflow', seed=7)
    with Tracking(made.config, tmp_path, start=0) as track, RunLogger(made, tmp_path, start=0, track=track.log) as log:
        metrics = {'loss': 1.5, 'top1_error': 0.5, 'learning_rate': 0.1, 'data_wait': 0.25}
        log.log_training(5, metrics, images_per_second=8.0)
        log.log_test(9, 'centre', {'loss': 2.0, 'top1_error': 0.5, 'top5_error': 0.1, 'examples': 3}, seconds=1.0)
        track.log_result(
            {'centre': {'loss': 2.0}, 'steps': 9, 'images_per_second': None, 'data_wait': 0.5, 'params_sha256': 'ab'}
        )
    kept = fake.store['run0']
    assert kept['settings'] == made.config.to_json()
    assert kept['records'] == [
        (5, {f'train/{name}': value for name, value in (metrics | {'images_per_second': 8.0}).items()}),
        (9, {f'validation_centre/{name}': value for name, value in
             {'loss': 2.0, 'top1_error': 0.5, 'top5_error': 0.1, 'examples': 3}.items()}),
        (9, {'result/centre/loss': 2.0, 'result/steps': 9, 'result/data_wait': 0.5, 'result/params_sha256': 'ab'}),
    ]  # fmt: skip
    assert kept['endings'] == ['done']
    assert json.loads((tmp_path / 'tracking.json').read_text())['mlflow']['run'] == 'run0'
    printed = capsys.readouterr()
    assert 'a greeting' not in printed.out  # that is for results
    assert 'a greeting' in printed.err


def test_tracking_resumes_the_same_run_with_each_step_once(fake, tmp_path):
    run(tmp_path / 'a', range(1, 18), tests=(16,))  # killed, say, after a checkpoint at 12
    run(tmp_path / 'a', range(13, 31), tests=(16, 24), scale=3.0)
    assert losses(fake) == [(5, 5.0), (10, 10.0), (15, 15.0), (20, 60.0), (25, 75.0), (30, 90.0)]
    assert losses(fake, 'validation_centre/loss') == [(16, 2.0), (24, 2.0)]
    run(tmp_path / 'a', range(28, 31), scale=9.0)  # killed once more
    assert len(losses(fake)) == 6


def test_tracking_sends_what_the_tracker_lacks_from_metrics_jsonl(fake, tmp_path):
    fake.breaks_at = 10
    run(tmp_path / 'a', range(1, 18), tests=(16,))
    fake.breaks_at = None
    run(tmp_path / 'a', range(13, 31), tests=(16, 24), scale=3.0)
    # Where the store cannot be asked, the step that it did not take counts as there: missing, never double.
    lost = [] if fake.can_be_asked else [10]
    expected = [(5, 5.0), (10, 10.0), (15, 45.0), (20, 60.0), (25, 75.0), (30, 90.0)]
    assert losses(fake) == [point for point in expected if point[0] not in lost]
    assert losses(fake, 'validation_centre/loss') == [(16, 2.0), (24, 2.0)]


def test_tracking_opens_another_run_for_another_folder(fake, tmp_path):
    for name in ('a', 'b'):
        run(tmp_path / name, range(1, 6))
    assert list(fake.store) == ['run0', 'run1']


@pytest.mark.parametrize(
    ('error', 'ending'), [(Interrupted('saved'), 'stopped'), (InputError('x'), 'failed'), (KeyError('x'), 'failed')]
)
def test_tracking_says_how_a_run_ended(fake, tmp_path, error, ending):
    with pytest.raises(type(error)), Tracking(config_with(tracking='mlflow'), tmp_path, start=0):
        raise error
    assert fake.store['run0']['endings'] == [ending]


def test_tracking_says_once_that_the_tracker_fails_and_goes_on(fake, tmp_path):
    fake.breaks_at = 10
    said = run(tmp_path / 'a', range(1, 31))
    assert said == ['WARNING: mlflow failed: ConnectionError: gone; the run goes on without; metrics.jsonl has all']
    assert losses(fake) == [(5, 5.0)]
    lines = (tmp_path / 'a' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in lines] == [5, 10, 15, 20, 25, 30]


def test_tracking_that_does_not_start_stops_a_new_run_alone(fake, tmp_path, capsys):
    fake.breaks_at = 'start'
    with pytest.raises(
        InputError, match=r'^mlflow does not open a run: ConnectionError: no route to host; .*tracking=$'
    ):
        Tracking(config_with(tracking='mlflow'), tmp_path, start=0)
    fake.breaks_at = None
    run(tmp_path / 'a', range(1, 6))
    fake.breaks_at = 'start'
    run(tmp_path / 'a', range(6, 11))
    assert 'WARNING: mlflow does not open a run' in capsys.readouterr().err
    assert len((tmp_path / 'a' / 'metrics.jsonl').read_text().splitlines()) == 2


def test_tracking_does_not_wait_for_a_tracker_that_hangs(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, 'PATIENCE', 0.1)
    stuck = threading.Event()
    monkeypatch.setattr(fake, 'log', lambda *_: stuck.wait(30))
    said = run(tmp_path / 'a', range(1, 31))
    stuck.set()
    assert said == ['WARNING: mlflow has not taken everything after 0 s; the rest is lost to it']
    assert len((tmp_path / 'a' / 'metrics.jsonl').read_text().splitlines()) == 6


def test_tracking_does_nothing_in_other_processes_and_without_a_tracker(fake, tmp_path):
    for made, silent in [(config_with(tracking='mlflow'), True), (config_with(), False)]:
        with Tracking(made, tmp_path, start=0, silent=silent) as track:
            track.log(1, 'train', {'loss': 1.0})
            track.log_result({'steps': 1})
    assert fake.store == {}
    assert list(tmp_path.iterdir()) == []


def test_tracking_refuses_a_damaged_tracking_json(fake, tmp_path):
    (tmp_path / 'tracking.json').write_text('{"mlflow": {')
    with pytest.raises(InputError, match=r'tracking.json is damaged: delete it'):
        Tracking(config_with(tracking='mlflow'), tmp_path, start=0)


@pytest.mark.parametrize('name', TRACKING)
def test_check_tracker_gives_the_command_for_a_missing_package(name, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    command = "pip install 'alexnet-jax[tracking]'"
    if name == 'trackio':
        command = "pip install 'alexnet-jax[trackio]' && pip install --no-deps trackio"
    for folder in (False, True):  # a folder that is called like it is not it
        if folder:
            (tmp_path / name).mkdir()
        with pytest.raises(InputError) as error:
            check_tracker(name)
        assert str(error.value) == f'config.tracking is {name!r}, which is not installed: {command}'
    (tmp_path / name / '__init__.py').write_text('raise AssertionError("imported")')
    check_tracker(name)


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec('trackio') is not None, reason='trackio is installed')
def test_train_without_its_tracker_s_package_ends_before_it_begins(tmp_path, program_cache, tiny_dir):
    process = cli.run(
        'train', '--config=configs/two_device.py:tiny', f'--config.data_dir={tiny_dir}', '--config.batch_size=8',
        '--config.tracking=trackio', f'--workdir={tmp_path / "run"}', cache=program_cache,
    )  # fmt: skip
    assert process.returncode == 1
    wanted = "pip install 'alexnet-jax[trackio]' && pip install --no-deps trackio"
    assert process.stderr == f"error: config.tracking is 'trackio', which is not installed: {wanted}\n"
    assert not (tmp_path / 'run').exists()
