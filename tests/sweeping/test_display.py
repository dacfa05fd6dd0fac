"""What a person sees: a table on a terminal, lines elsewhere."""

import io

import pytest
from rich.console import Console

from alexnet_jax.sweeping.display import Display, cells
from alexnet_jax.sweeping.plan import checked
from alexnet_jax.sweeping.progress import Progress
from alexnet_jax.sweeping.runner import Run
from alexnet_jax.training.config import recipe


@pytest.fixture
def run(tmp_path):
    def make(seed=0, state='running', **more):
        progress = Progress(tmp_path)
        progress.step, progress.loss, progress.errors = 20, 1.23456, {10: 0.5, 20: 0.0425}
        progress.images_per_second = 16.0
        return Run(checked(recipe(None), {'seed': seed}), 100, progress, state=state, **more)

    return make


def display(total=3, *, terminal=False, height=40):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, height=height, highlight=False, soft_wrap=True)
    return Display(total, jobs=2, console=console), out


def test_a_row(run):
    # 80 steps of 32 images at 16 images/s
    assert cells(run()) == ('seed=0', 'running', '20/100', '1.235', '4.25%', '2:40')
    assert cells(run(state='finished'))[-1] == ''


def test_lines_where_there_is_no_terminal(run):
    shown, out = display()
    with shown:
        shown.report(run(tries=1))
        shown.report(run(state='finished', tries=1, seconds=61.0))
        shown.report(run(1, state='finished'))
        shown.report(run(2, tries=2))
        shown.report(run(2, state='failed', says='error: [no] memory'))
        shown.show([])
    assert out.getvalue().splitlines() == [
        'seed=0: running',
        'seed=0: finished, 4.25% validation error, 1:01  [1 of 3]',
        'seed=1: finished, 4.25% validation error, by an earlier start  [2 of 3]',
        'seed=2: running again, try 2',
        'seed=2: failed (error: [no] memory)  [3 of 3]',
    ]


def test_a_table_on_a_terminal(run):
    shown, out = display(terminal=True)
    with shown:
        shown.report(run())
        shown.show([run(), run(1, state='failed')])
    text = out.getvalue()
    for word in ('validation error', 'seed=0', '20/100', '2:40', 'seed=1', 'failed', '1 running, 1 waiting'):
        assert word in text
    assert 'seed=0: running' not in text  # the table says it


def test_a_long_sweep_shows_what_goes_on_first(run):
    shown, _ = display(50, terminal=True, height=12)
    runs = [run(seed, state='finished') for seed in range(30)] + [run(30, state='failed'), run(31)]
    rows = list(shown.table(runs).columns[0].cells)
    assert rows == ['seed=0', 'seed=1', 'seed=30', 'seed=31', 'and 28 more']


def test_how_long_the_rest_may_take(run, monkeypatch):
    monkeypatch.setattr('time.monotonic', lambda: 100.0)
    shown, _ = display(6)
    runs = [run(state='finished', tries=1, seconds=50.0), run(1, state='finished', tries=1, seconds=70.0)]
    runs += [run(2, began=80.0), run(3, state='finished')]  # 40 s of 60 are left; the last was finished before
    # 40 s and two that wait, 60 s each, by two jobs
    assert shown.summary(runs) == '3 finished, 1 running, 2 waiting; about 1:20 left'
    assert shown.summary([]) == '6 waiting'
