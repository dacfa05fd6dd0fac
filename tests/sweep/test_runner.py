"""The runner, with a small program in place of training; with training itself in tests/commands/test_sweep.py."""

import errno
import os
import signal
import subprocess
import threading
import time

import pytest
from sweep import programs

from alexnet_jax.sweep.plan import check_points, format_options, make_point
from alexnet_jax.sweep.record import lock_point
from alexnet_jax.sweep.resources import Resources
from alexnet_jax.sweep.results import read_log_end
from alexnet_jax.sweep.runner import MAX_ATTEMPTS, PointSource, Runner
from alexnet_jax.training.config import make_config

ALL = (Resources(),)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Runs points seed=0, seed=1, ... as the script says; returns (exit code, runs, reports).

    `stop_at`: the report at which this process gets SIGTERM.
    """
    monkeypatch.delenv('PJRT_NPROC', raising=False)
    monkeypatch.setattr('alexnet_jax.sweep.runner._POLL_SECONDS', 0.02)
    monkeypatch.setattr('alexnet_jax.sweep.runner._REFRESH_SECONDS', 0.1)
    root = tmp_path / 'sweep'
    root.mkdir()
    points = check_points(make_config(None), [{'seed': seed} for seed in range(4)])

    def run(script, *, count=2, resources=ALL, source=None, stop_at=None):
        program = programs.write_program(tmp_path, script)
        reports = []

        def report(run):
            reports.append((run.point.name, run.state))
            if reports[-1] == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        runner = Runner(
            root,
            source or PointSource(points[:count]),
            command=lambda point: [*program, *format_options(point.overrides), f'--workdir={root / point.name}'],
            steps=lambda point: 10,
            resources=resources,
            report=report,
            show=lambda runs: None,
        )
        return runner.run(), runner.runs, reports

    run.root = root
    return run


def stop_when_exists(path):
    """Sends this process SIGTERM, from a thread, as soon as `path` exists."""
    thread = threading.Thread(target=lambda: (programs.wait_for(path), os.kill(os.getpid(), signal.SIGTERM)))
    thread.start()
    return thread


def test_runner_runs_points_in_order(sweep):
    code, runs, reports = sweep({})
    assert code == 0
    assert reports == [('seed=0', 'running'), ('seed=0', 'finished'), ('seed=1', 'running'), ('seed=1', 'finished')]
    assert [start['options']['config.seed'] for start in programs.load_starts(sweep.root / 'seed=1')] == ['1']
    assert [(run.progress.step, run.progress.loss, run.progress.error) for run in runs] == [(5, 1.5, 0.25)] * 2


def test_runner_skips_finished_points(sweep):
    sweep({})
    code, runs, reports = sweep({})
    assert (code, [run.state for run in runs]) == (0, ['finished', 'finished'])
    assert reports == [('seed=0', 'finished'), ('seed=1', 'finished')]
    assert len(programs.load_starts(sweep.root / 'seed=0')) == 1


def test_runner_repeats_a_run_with_a_truncated_result(sweep):
    sweep({}, count=1)
    (sweep.root / 'seed=0' / 'result.json').write_text('{"steps": 10, "cen')
    assert sweep({}, count=1)[0] == 0
    assert len(programs.load_starts(sweep.root / 'seed=0')) == 2


def test_runner_goes_on_after_failures(sweep):
    code, runs, _ = sweep({'seed=0': [1], 'seed=1': ['kill'], 'seed=2': [143]}, count=4)
    assert code == 1
    assert [run.state for run in runs] == ['failed', 'failed', 'failed', 'finished']
    assert [run.last_line for run in runs] == ['start 0: 1', 'start 0: kill', 'start 0: 143', '']
    notes = [read_log_end(sweep.root / f'seed={seed}.log')[0] for seed in range(4)]
    assert notes == ['failed, exit code 1', 'failed, ended by SIGKILL', 'failed, exit code 143', '']


def test_runner_goes_on_with_a_full_disk(sweep, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file, self.fileno = file, file.fileno

        def write(self, text):
            raise OSError(errno.ENOSPC, 'No space left on device')

        def close(self):
            self.file.close()
            self.write('what was in the buffer')

    monkeypatch.setattr('alexnet_jax.sweep.runner.lock_point', lambda root, name: Full(lock_point(root, name)))
    code, runs, _ = sweep({'seed=0': ['1']})
    assert (code, [run.state for run in runs]) == (1, ['failed', 'finished'])


def test_runner_repeats_failed_runs_at_the_next_start(sweep):
    assert sweep({'seed=0': [1, 'done']}, count=1)[0] == 1
    assert sweep({'seed=0': [1, 'done']}, count=1)[0] == 0


def test_runner_fails_a_run_without_a_result(sweep):
    code, runs, _ = sweep({'seed=0': [0]}, count=1)
    assert (code, runs[0].state) == (1, 'failed')
    assert read_log_end(sweep.root / 'seed=0.log') == ('failed, without a result', 'start 0: 0')


def test_runner_repeats_a_lost_run_up_to_three_times(sweep):
    code, runs, _ = sweep({'seed=0': [75, 75, 'done']}, count=1)
    assert (code, runs[0].state, runs[0].attempts) == (0, 'finished', 3)
    code, runs, _ = sweep({'seed=1': [75]}, count=2)
    assert (code, runs[1].state) == (75, 'failed')
    assert len(programs.load_starts(sweep.root / 'seed=1')) == MAX_ATTEMPTS


def test_runner_gives_each_job_its_resources(sweep):
    cores = sorted(os.sched_getaffinity(0))
    resources = [Resources(cores=(cores[0],)), Resources(cores=(cores[-1],))]
    both = (sweep.root / 'seed=0' / 'start0', sweep.root / 'seed=1' / 'start0')
    go = threading.Thread(target=lambda: (programs.wait_for(*both), (sweep.root.parent / 'go').write_text('')))
    go.start()  # neither ends before both have begun
    code, _, _ = sweep({'seed=0': ['wait'], 'seed=1': ['wait']}, count=3, resources=resources)
    go.join()
    assert code == 0
    first = [programs.load_starts(sweep.root / f'seed={seed}')[0] for seed in range(2)]
    assert [one['cores'] for one in first] == [[cores[0]], [cores[-1]]]
    assert [one['threads'] for one in first] == ['3', '3']  # a mesh of two devices, and one more


def test_runner_stops_at_sigterm_and_resumes(sweep):
    thread = stop_when_exists(sweep.root / 'seed=0' / 'start0')
    code, runs, _ = sweep({'seed=0': ['wait', 'done']}, count=2)
    thread.join()
    assert (code, [(run.point.name, run.state) for run in runs]) == (76, [('seed=0', 'stopped')])
    assert read_log_end(sweep.root / 'seed=0.log')[0] == 'stopped'
    code, runs, _ = sweep({'seed=0': ['wait', 'done']}, count=2)
    assert (code, [run.state for run in runs]) == (0, ['finished', 'finished'])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_runner_forwards_a_second_signal(sweep, tmp_path):
    log = sweep.root / 'seed=0.log'

    def send_signals():
        programs.wait_for(sweep.root / 'seed=0' / 'start0')
        for count in (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
            while log.read_text().count('SIGTERM') < count:
                time.sleep(0.02)
        (tmp_path / 'go').write_text('')

    thread = threading.Thread(target=send_signals)
    thread.start()
    assert sweep({'seed=0': ['ignore']}, count=2)[0] == 76  # seed=1 was not begun
    thread.join()
    assert log.read_text().count('SIGTERM') == 2


def start_external(sweep, folder, script):
    """Starts seed=0 as a process whose sweep was killed: it alone holds the lock."""
    program = programs.write_program(folder, script)
    held = lock_point(sweep.root, 'seed=0')
    process = subprocess.Popen([*program, f'--workdir={sweep.root / "seed=0"}'], stdout=held, stderr=held)
    held.close()
    programs.wait_for(sweep.root / 'seed=0' / 'start0')
    return process


def test_runner_waits_for_an_external_run(sweep, tmp_path):
    external = start_external(sweep, tmp_path, {'seed=0': ['wait']})
    go = threading.Timer(0.3, lambda: (tmp_path / 'go').write_text(''))
    go.start()
    code, _, reports = sweep({'seed=0': ['wait']}, count=2)
    external.wait()
    assert code == 0
    assert reports[:2] == [('seed=0', 'external'), ('seed=0', 'finished')]
    assert len(programs.load_starts(sweep.root / 'seed=0')) == 1  # never two at once, and not again


def test_runner_resumes_an_external_run_that_died(sweep, tmp_path):
    external = start_external(sweep, tmp_path, {'seed=0': ['wait', 'done']})
    threading.Timer(0.3, external.kill).start()
    code, runs, reports = sweep({'seed=0': ['wait', 'done']}, count=1)
    external.wait()
    assert (code, runs[0].state) == (0, 'finished')
    assert [state for _, state in reports] == ['external', 'running', 'finished']


def test_runner_does_not_stop_an_external_run(sweep, tmp_path):
    external = start_external(sweep, tmp_path, {'seed=0': ['wait']})
    code, runs, _ = sweep({'seed=0': ['wait']}, count=2, stop_at=('seed=0', 'external'))
    assert (code, runs[0].state, external.poll()) == (76, 'external', None)
    external.kill()
    external.wait()


def test_runner_starts_nothing_after_sigterm(sweep, tmp_path):
    external = start_external(sweep, tmp_path, {'seed=0': ['wait']})

    def events():
        programs.wait_for(sweep.root / 'seed=1' / 'start0')
        os.kill(os.getpid(), signal.SIGTERM)  # which our own run takes its time to follow
        time.sleep(0.2)
        external.kill()
        external.wait()
        time.sleep(0.3)
        (tmp_path / 'go').touch()

    thread = threading.Thread(target=events)
    thread.start()
    code, _, _ = sweep({'seed=0': ['wait'], 'seed=1': ['ignore']}, resources=(Resources(), Resources()))
    thread.join()
    assert code == 76
    assert len(programs.load_starts(sweep.root / 'seed=0')) == 1


class PruningSource(PointSource):
    """Prunes seed=0 as soon as it has a validation error."""

    ended: list

    def should_prune(self, run):
        return run.point.name == 'seed=0' and run.progress.error is not None

    def record_end(self, run):
        self.ended = [*getattr(self, 'ended', []), (run.point.name, run.state)]


def test_runner_prunes_a_run(sweep):
    source = PruningSource([make_point(make_config(None), {'seed': seed}) for seed in range(2)])
    code, _, _ = sweep({'seed=0': ['wait']}, source=source)
    assert code == 0
    assert source.ended == [('seed=0', 'pruned'), ('seed=1', 'finished')]
    assert read_log_end(sweep.root / 'seed=0.log')[0] == 'pruned'
