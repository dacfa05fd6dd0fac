"""Runs a sweep, or a search, and writes its results."""

import subprocess
import sys
from collections.abc import Sequence

from alexnet_jax.console import info
from alexnet_jax.files import write_file
from alexnet_jax.sweep.display import Display
from alexnet_jax.sweep.plan import MODULE, Plan, Point, count_steps
from alexnet_jax.sweep.plot import plot_sweep
from alexnet_jax.sweep.record import SweepRecord
from alexnet_jax.sweep.resources import split_machine
from alexnet_jax.sweep.results import choose_best_runs, format_csv, format_markdown, group_by_setting, load_rows
from alexnet_jax.sweep.runner import PointSource, Runner
from alexnet_jax.sweep.search import OptunaSearch, Space

REPORTED_RUNS = 6  # on one page: more cannot be told apart there


def run_sweep(
    plan: Plan, record: SweepRecord, points: Sequence[Point], space: Space | None, *, jobs: int, trials: int
) -> int:
    """Runs `points`, or a search of `space` until it has `trials` in all, `jobs` runs at a time.

    Returns:
      The exit code, see `Runner.run`.

    Raises:
      InputError: a dataset is not prepared, or the machine cannot be split between so many jobs.
    """
    resources = split_machine(jobs)
    for point in points:
        count_steps(point)  # opens or renders datasets before the first run
    if record.previous_points:
        info(
            f'{record.new} points are new; {len(record.previous_points)} of earlier starts are no longer asked for: '
            f'they stay in the table, marked'
        )
    source, total = PointSource(points), len(points)
    if space is not None:
        source = search = OptunaSearch(record, plan.base, space, trials=trials)
        total = search.left
    with Display(total, jobs=jobs) as display:
        return Runner(
            plan.root,
            source,
            command=plan.make_command,
            steps=count_steps,
            resources=resources,
            report=display.report,
            show=display.show,
            arguments=plan.make_arguments if plan.module == MODULE else None,
        ).run()


def write_results(record: SweepRecord, *, title: str, command: str) -> str:
    """Writes ROOT/results.csv, results.md and, if a run is finished, results.png; returns the Markdown."""
    rows = load_rows(record)
    text = format_markdown(rows, title=title, command=command)
    if settings := [setting for setting in group_by_setting(rows) if setting.get_errors()]:
        plot_sweep(settings, record.root / 'results.png', searched=list(record.search or ()))
    write_file(record.root / 'results.csv', format_csv(rows))
    write_file(record.root / 'results.md', text)
    return text


def write_best_runs_report(record: SweepRecord) -> None:
    """Writes ROOT/report.html, which compares the best runs, by a process of `alexnet report`."""
    names = choose_best_runs(load_rows(record), REPORTED_RUNS)
    if not names:
        info('no report: no run is finished')
        return
    command = [sys.executable, '-m', 'alexnet_jax', 'report', f'--output={record.root / "report.html"}']
    command += [f'--workdir={record.root / name}' for name in names]
    # In a session of its own: a terminal's Ctrl-C reaches this process alone, which ends the other.
    subprocess.run(command, check=False, start_new_session=True)
