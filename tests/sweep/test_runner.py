"""The runner, with a small program in place of training; with training itself in tests/commands/test_sweep.py."""

import errno
import os
import signal
import subprocess
import threading
import time

import pytest
from sweep import programs

from alexnet_jax.sweep.handover import RunProcess
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

    `stop_at`: the report at which this process gets SIGTERM; `share`: whether a process makes several runs.
    """
    monkeypatch.delenv('PJRT_NPROC', raising=False)
    monkeypatch.setattr('alexnet_jax.sweep.runner._POLL_SECONDS', 0.02)
    monkeypatch.setattr('alexnet_jax.sweep.runner._REFRESH_SECONDS', 0.1)
    root = tmp_path / 'sweep'
    root.mkdir()
    points = check_points(make_config(None), [{'seed': seed} for seed in range(4)])

    def run(script, *, count=2, resources=ALL, source=None, stop_at=None, share=False):
        program = programs.write_program(tmp_path, script)
        reports = []

        def report(run):
            reports.append((run.point.name, run.state))
            if reports[-1] == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        def arguments(point):
            return [*format_options(point.overrides), f'--workdir={root / point.name}']

        runner = Runner(
            root,
            source or PointSource(points[:count]),
            command=lambda point: [*program, *arguments(point)],
            steps=lambda point: 10,
            resources=resources,
            report=report,
            show=lambda runs: None,
            arguments=arguments if share else None,
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


def list_processes(sweep, count):
    """The process of the last start of each of the first runs."""
    return [programs.load_starts(sweep.root / f'seed={seed}')[-1]['pid'] for seed in range(count)]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_runner_makes_runs_in_turn_in_one_process(sweep):
    code, runs, reports = sweep({}, count=3, share=True)
    assert (code, [run.state for run in runs]) == (0, ['finished'] * 3)
    assert reports[2:4] == [('seed=1', 'running'), ('seed=1', 'finished')]
    (pid,) = set(list_processes(sweep, 3))
    assert not is_alive(pid)
    logs = [(sweep.root / f'seed={seed}.log').read_text() for seed in range(3)]
    assert logs == ['start 0: done\n'] * 3  # each its own run, and no more
    assert programs.load_starts(sweep.root / 'seed=2')[0]['options']['config.seed'] == '2'


def test_runner_begins_another_process_after_a_failure(sweep):
    code, runs, _ = sweep({'seed=1': [1], 'seed=2': ['kill']}, count=4, share=True)
    assert (code, [run.state for run in runs]) == (1, ['finished', 'failed', 'failed', 'finished'])
    first, second, third, fourth = list_processes(sweep, 4)
    assert first == second and len({second, third, fourth}) == 3
    notes = [read_log_end(sweep.root / f'seed={seed}.log') for seed in range(4)]
    assert notes[1:3] == [('failed, exit code 1', 'start 0: 1'), ('failed, ended by SIGKILL', 'start 0: kill')]


def test_runner_shares_no_process_between_meshes_or_with_a_tracker(sweep):
    values = [{'mesh': (1, 1)}, {'mesh': (1, 1), 'momentum': 0.5}, {}, {'deterministic': True}]
    values += [{'tracking': 'mlflow'}, {'tracking': 'mlflow', 'momentum': 0.5}]
    points = check_points(make_config(None), values)
    assert sweep({}, source=PointSource(points), share=True)[0] == 0
    pids = [programs.load_starts(sweep.root / point.name)[0]['pid'] for point in points]
    assert pids[0] == pids[1] and len(set(pids)) == 5


def test_a_shared_process_holds_the_lock_of_its_present_run_alone(sweep):
    """After kill -9 of the sweep: the run it has been handed goes on and is waited for, the one before is free."""

    def look():
        programs.wait_for(sweep.root / 'seed=1' / 'start0')
        free = lock_point(sweep.root, 'seed=0')
        found.append((free is not None, lock_point(sweep.root, 'seed=1')))
        free.close()
        (sweep.root.parent / 'go').write_text('')

    found = []
    thread = threading.Thread(target=look)
    thread.start()
    code, _, _ = sweep({'seed=1': ['wait']}, count=2, share=True)
    thread.join()
    assert (code, found) == (0, [(True, None)])
    assert len(set(list_processes(sweep, 2))) == 1


def test_runner_stops_a_run_that_was_handed_over(sweep):
    thread = stop_when_exists(sweep.root / 'seed=1' / 'start0')
    code, runs, _ = sweep({'seed=1': ['wait', 'done']}, count=3, share=True)
    thread.join()
    assert (code, [run.state for run in runs]) == (76, ['finished', 'stopped'])
    assert read_log_end(sweep.root / 'seed=1.log')[0] == 'stopped'
    assert sweep({'seed=1': ['wait', 'done']}, count=3, share=True)[0] == 0


def test_a_shared_process_ends_after_its_run_where_the_sweep_is_gone(tmp_path):
    root = tmp_path / 'sweep'
    root.mkdir()
    program = programs.write_program(tmp_path, {'seed=0': ['wait']})
    with (tmp_path / 'log').open('w') as log:
        process = RunProcess([*program, f'--workdir={root / "seed=0"}'], kind='any', log=log.fileno())
    programs.wait_for(root / 'seed=0' / 'start0')
    assert (process.poll(), process.idle) == (None, False)
    (tmp_path / 'go').write_text('')
    process.close()  # as the kernel does for a killed sweep
    assert (process.poll(), (root / 'seed=0' / 'result.json').exists()) == (0, True)


def test_an_idle_process_leaves_the_lock_of_the_run_that_it_has_finished(tmp_path):
    """Another sweep of the folder waits for it."""
    root = tmp_path / 'sweep'
    root.mkdir()
    log = lock_point(root, 'seed=0')
    program = programs.write_program(tmp_path)
    process = RunProcess([*program, f'--workdir={root / "seed=0"}'], kind='any', log=log.fileno())
    log.close()
    while process.poll() is None:  # 0 where it is idle, another code where it has failed
        time.sleep(0.02)
    assert process.idle
    with lock_point(root, 'seed=0') as free:
        assert free is not None
    process.close()
