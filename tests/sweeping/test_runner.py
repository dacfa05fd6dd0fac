"""The runner, with a small program in place of training; with training itself in tests/launch/test_sweep.py."""

import errno
import os
import signal
import subprocess
import threading
import time

import pytest
from sweeping import programs

from alexnet_jax.sweeping.plan import check, checked
from alexnet_jax.sweeping.progress import ended_as
from alexnet_jax.sweeping.record import lock
from alexnet_jax.sweeping.runner import TRIES, Listed, Runner
from alexnet_jax.sweeping.shares import Share
from alexnet_jax.training.config import recipe

ALL = (Share(),)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Runs points seed=0, seed=1, ... as the script says; returns (exit code, runs, reports).

    `told`: the report at which this process is told to stop.
    """
    monkeypatch.delenv('PJRT_NPROC', raising=False)
    root = tmp_path / 'sweep'
    root.mkdir()
    points = check(recipe(None), [{'seed': seed} for seed in range(4)])

    def run(script, *, count=2, shares=ALL, source=None, told=None):
        program = programs.install(tmp_path, script)
        reports = []

        def report(run):
            reports.append((run.point.name, run.state))
            if reports[-1] == told:
                os.kill(os.getpid(), signal.SIGTERM)

        runner = Runner(
            root,
            source or Listed(points[:count]),
            command=lambda point: [*program, *point.options, f'--workdir={root / point.name}'],
            steps=lambda point: 10,
            shares=shares,
            report=report,
            show=lambda runs: None,
        )
        return runner.run(), runner.runs, reports

    run.root = root
    return run


def stop_when_there(path):
    """In a thread: as soon as `path` is there, this process is told to stop."""
    thread = threading.Thread(target=lambda: (programs.wait_for(path), os.kill(os.getpid(), signal.SIGTERM)))
    thread.start()
    return thread


def test_all_are_run_one_after_the_other(sweep):
    code, runs, reports = sweep({})
    assert code == 0
    assert reports == [('seed=0', 'running'), ('seed=0', 'finished'), ('seed=1', 'running'), ('seed=1', 'finished')]
    assert [said['options']['config.seed'] for said in programs.starts(sweep.root / 'seed=1')] == ['1']
    assert [(run.progress.step, run.progress.loss, run.progress.error) for run in runs] == [(5, 1.5, 0.25)] * 2


def test_the_same_again_runs_nothing(sweep):
    sweep({})
    code, runs, reports = sweep({})
    assert (code, [run.state for run in runs]) == (0, ['finished', 'finished'])
    assert reports == [('seed=0', 'finished'), ('seed=1', 'finished')]
    assert len(programs.starts(sweep.root / 'seed=0')) == 1


def test_a_result_that_is_cut_off_is_run_again(sweep):
    sweep({}, count=1)
    (sweep.root / 'seed=0' / 'result.json').write_text('{"steps": 10, "cen')
    assert sweep({}, count=1)[0] == 0
    assert len(programs.starts(sweep.root / 'seed=0')) == 2


def test_one_failing_does_not_stop_the_others(sweep):
    code, runs, _ = sweep({'seed=0': [1], 'seed=1': ['kill'], 'seed=2': [143]}, count=4)
    assert code == 1
    assert [run.state for run in runs] == ['failed', 'failed', 'failed', 'finished']
    assert [run.says for run in runs] == ['start 0: 1', 'start 0: kill', 'start 0: 143', '']
    notes = [ended_as(sweep.root / f'seed={seed}.log')[0] for seed in range(4)]
    assert notes == ['failed, exit code 1', 'failed, ended by SIGKILL', 'failed, exit code 143', '']


def test_a_log_that_the_disk_does_not_take_does_not_stop_the_others(sweep, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file, self.fileno = file, file.fileno

        def write(self, text):
            raise OSError(errno.ENOSPC, 'No space left on device')

        def close(self):
            self.file.close()
            self.write('what was in the buffer')

    monkeypatch.setattr('alexnet_jax.sweeping.runner.lock', lambda root, name: Full(lock(root, name)))
    code, runs, _ = sweep({'seed=0': ['1']})
    assert (code, [run.state for run in runs]) == (1, ['failed', 'finished'])


def test_what_failed_is_tried_again_by_the_next_start(sweep):
    assert sweep({'seed=0': [1, 'done']}, count=1)[0] == 1
    assert sweep({'seed=0': [1, 'done']}, count=1)[0] == 0


def test_a_run_that_ends_well_without_a_result_has_failed(sweep):
    code, runs, _ = sweep({'seed=0': [0]}, count=1)
    assert (code, runs[0].state) == (1, 'failed')
    assert ended_as(sweep.root / 'seed=0.log') == ('failed, without a result', 'start 0: 0')


def test_a_loss_is_tried_again_and_not_for_ever(sweep):
    code, runs, _ = sweep({'seed=0': [75, 75, 'done']}, count=1)
    assert (code, runs[0].state, runs[0].tries) == (0, 'finished', 3)
    code, runs, _ = sweep({'seed=1': [75]}, count=2)
    assert (code, runs[1].state) == (75, 'failed')
    assert len(programs.starts(sweep.root / 'seed=1')) == TRIES


def test_jobs_go_at_the_same_time_each_with_its_share(sweep):
    cores = sorted(os.sched_getaffinity(0))
    shares = [Share(cores=(cores[0],)), Share(cores=(cores[-1],))]
    both = (sweep.root / 'seed=0' / 'start0', sweep.root / 'seed=1' / 'start0')
    go = threading.Thread(target=lambda: (programs.wait_for(*both), (sweep.root.parent / 'go').write_text('')))
    go.start()  # neither ends before both have begun
    code, _, _ = sweep({'seed=0': ['wait'], 'seed=1': ['wait']}, count=3, shares=shares)
    go.join()
    assert code == 0
    said = [programs.starts(sweep.root / f'seed={seed}')[0] for seed in range(2)]
    assert [one['cores'] for one in said] == [[cores[0]], [cores[-1]]]
    assert [one['threads'] for one in said] == ['3', '3']  # a mesh of two devices, and one more


def test_told_to_stop_the_runs_save_and_no_other_begins(sweep):
    thread = stop_when_there(sweep.root / 'seed=0' / 'start0')
    code, runs, _ = sweep({'seed=0': ['wait', 'done']}, count=2)
    thread.join()
    assert (code, [(run.point.name, run.state) for run in runs]) == (76, [('seed=0', 'stopped')])
    assert ended_as(sweep.root / 'seed=0.log')[0] == 'stopped'
    code, runs, _ = sweep({'seed=0': ['wait', 'done']}, count=2)
    assert (code, [run.state for run in runs]) == (0, ['finished', 'finished'])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_is_handed_on_too(sweep, tmp_path):
    log = sweep.root / 'seed=0.log'

    def tell():
        programs.wait_for(sweep.root / 'seed=0' / 'start0')
        for count in (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
            while log.read_text().count('told') < count:
                time.sleep(0.02)
        (tmp_path / 'go').write_text('')

    thread = threading.Thread(target=tell)
    thread.start()
    assert sweep({'seed=0': ['deaf']}, count=2)[0] == 76  # seed=1 was not begun
    thread.join()
    assert log.read_text().count('told') == 2


def left_by_another(sweep, folder, script):
    """The process of seed=0, running, whose sweep was killed: it alone holds the lock."""
    program = programs.install(folder, script)
    held = lock(sweep.root, 'seed=0')
    process = subprocess.Popen([*program, f'--workdir={sweep.root / "seed=0"}'], stdout=held, stderr=held)
    held.close()
    programs.wait_for(sweep.root / 'seed=0' / 'start0')
    return process


def test_what_another_sweep_left_running_is_waited_for(sweep, tmp_path):
    orphan = left_by_another(sweep, tmp_path, {'seed=0': ['wait']})
    go = threading.Timer(1.0, lambda: (tmp_path / 'go').write_text(''))
    go.start()
    code, _, reports = sweep({'seed=0': ['wait']}, count=2)
    orphan.wait()
    assert code == 0
    assert reports[:2] == [('seed=0', 'elsewhere'), ('seed=0', 'finished')]
    assert len(programs.starts(sweep.root / 'seed=0')) == 1  # never two at once, and not again


def test_what_another_sweep_left_and_died_goes_on(sweep, tmp_path):
    orphan = left_by_another(sweep, tmp_path, {'seed=0': ['wait', 'done']})
    threading.Timer(1.0, orphan.kill).start()
    code, runs, reports = sweep({'seed=0': ['wait', 'done']}, count=1)
    orphan.wait()
    assert (code, runs[0].state) == (0, 'finished')
    assert [state for _, state in reports] == ['elsewhere', 'running', 'finished']


def test_what_another_sweep_runs_is_not_ours_to_stop(sweep, tmp_path):
    orphan = left_by_another(sweep, tmp_path, {'seed=0': ['wait']})
    code, runs, _ = sweep({'seed=0': ['wait']}, count=2, told=('seed=0', 'elsewhere'))
    assert (code, runs[0].state, orphan.poll()) == (76, 'elsewhere', None)
    orphan.kill()
    orphan.wait()


def test_told_to_stop_it_begins_nothing_that_another_sweep_leaves_meanwhile(sweep, tmp_path):
    orphan = left_by_another(sweep, tmp_path, {'seed=0': ['wait']})

    def events():
        programs.wait_for(sweep.root / 'seed=1' / 'start0')
        os.kill(os.getpid(), signal.SIGTERM)  # which our own run takes its time to follow
        time.sleep(0.5)
        orphan.kill()
        orphan.wait()
        time.sleep(1)
        (tmp_path / 'go').touch()

    thread = threading.Thread(target=events)
    thread.start()
    code, _, _ = sweep({'seed=0': ['wait'], 'seed=1': ['deaf']}, shares=(Share(), Share()))
    thread.join()
    assert code == 76
    assert len(programs.starts(sweep.root / 'seed=0')) == 1


class Choosy(Listed):
    """Stops seed=0 as soon as there is a test of it."""

    heard: list

    def watch(self, run):
        return run.point.name == 'seed=0' and run.progress.error is not None

    def ended(self, run):
        self.heard = [*getattr(self, 'heard', []), (run.point.name, run.state)]


def test_a_source_can_stop_a_run_for_good(sweep):
    source = Choosy([checked(recipe(None), {'seed': seed}) for seed in range(2)])
    code, _, _ = sweep({'seed=0': ['wait']}, source=source)
    assert code == 0
    assert source.heard == [('seed=0', 'pruned'), ('seed=1', 'finished')]
    assert ended_as(sweep.root / 'seed=0.log')[0] == 'pruned'
