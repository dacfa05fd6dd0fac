"""The display: a table on a terminal, lines elsewhere."""

import io

import pytest
from rich.console import Console

from alexnet_jax.sweep.display import Display, format_cells
from alexnet_jax.sweep.plan import make_point
from alexnet_jax.sweep.results import RunProgress
from alexnet_jax.sweep.runner import SweepRun
from alexnet_jax.training.config import make_config


@pytest.fixture
def run():
    def make(seed=0, state='running', **more):
        progress = RunProgress(20, 1.23456, {10: 0.5, 20: 0.0425}, 16.0)
        return SweepRun(make_point(make_config(None), {'seed': seed}), 100, progress, state=state, **more)

    return make


def display(total=3, *, terminal=False, height=40):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, height=height, highlight=False, soft_wrap=True)
    return Display(total, jobs=2, console=console), out


def test_format_cells_estimates_the_time_left(run):
    # 80 steps of 32 images at 16 images/s
    assert format_cells(run()) == ('seed=0', 'running', '20/100', '1.235', '4.25%', '2:40')
    assert format_cells(run(state='finished'))[-1] == ''


def test_report_prints_lines_where_there_is_no_terminal(run):
    shown, out = display()
    with shown:
        shown.report(run(attempts=1))
        shown.report(run(state='finished', attempts=1, seconds=61.0))
        shown.report(run(1, state='finished'))
        shown.report(run(2, attempts=2))
        shown.report(run(2, state='failed', last_line='error: [no] memory'))
        shown.show([])
    assert out.getvalue().splitlines() == [
        'seed=0: running',
        'seed=0: finished, 4.25% validation error, 1:01  [1 of 3]',
        'seed=1: finished, 4.25% validation error, by an earlier start  [2 of 3]',
        'seed=2: running again, attempt 2',
        'seed=2: failed (error: [no] memory)  [3 of 3]',
    ]


def test_show_draws_a_table_on_a_terminal(run):
    shown, out = display(terminal=True)
    with shown:
        shown.report(run())
        shown.show([run(), run(1, state='failed')])
    shown_text = out.getvalue()
    for text in ('validation error', 'seed=0', '20/100', '2:40', 'seed=1', 'failed', '1 running, 1 waiting'):
        assert text in shown_text
    assert 'seed=0: running' not in shown_text  # the table has it


def test_make_table_prefers_active_and_failed_runs(run):
    shown, _ = display(50, terminal=True, height=12)
    runs = [run(seed, state='finished') for seed in range(30)] + [run(30, state='failed'), run(31)]
    rows = list(shown.make_table(runs).columns[0].cells)
    assert rows == ['seed=0', 'seed=1', 'seed=30', 'seed=31', 'and 28 more']


def test_format_summary_estimates_the_time_left(run, monkeypatch):
    monkeypatch.setattr('time.monotonic', lambda: 100.0)
    shown, _ = display(6)
    runs = [run(state='finished', attempts=1, seconds=50.0), run(1, state='finished', attempts=1, seconds=70.0)]
    runs += [run(2, started=80.0), run(3, state='finished')]  # 40 s of 60 are left; the last was finished before
    # 40 s and two that wait, 60 s each, by two jobs
    assert shown.format_summary(runs) == '3 finished, 1 running, 2 waiting; about 1:20 left'
    assert shown.format_summary([]) == '6 waiting'
