"""Runs one config many times, with other values each time, and compares the results.

    alexnet sweep --config=configs/two_device.py --workdir=runs/rates \\
        --sweep.learning_rate=0.001,0.003,0.01 --sweep.seed=0,1,2 --jobs=2
    alexnet sweep --config=FILE.py --workdir=runs/x                    FILE.py defines sweep()
    alexnet sweep --config=... --workdir=runs/y --search=optuna --trials=40 \\
        --sweep.learning_rate=log:1e-4..1e-1 --sweep.momentum=0.8..0.99 --sweep.batch_size=16,32,64

--sweep.KEY=VALUES is multiplied with the others and with the config's sweep(); values that are tuples are separated by
semicolons ('--sweep.mesh=1,1;1,2'). --config.KEY=VALUE holds for all runs. A search takes ranges, and no sweep().
All points are checked before the first run. Each has a folder in --workdir and beside it NAME.log. The same command
again skips finished runs and resumes the others. At the end: results.csv, results.md, results.png, and with
--report a page that compares the best settings. --index=I runs point I only, for job arrays: launch/slurm_sweep.sbatch.
Exit codes are alexnet_jax.main's: 0 all finished, 1 some failed, 75 lost, 76 told to stop. docs/sweeps.md has more.
"""

import pathlib
import shlex
import sys

from absl import flags, logging
from ml_collections import config_flags

from alexnet_jax.commands.command_line import parse_config_flags
from alexnet_jax.errors import INTERRUPTED, InputError
from alexnet_jax.sweep.plan import MODULE, Plan, check_points, format_options, load_sweep, parse_values, split_options
from alexnet_jax.sweep.points import each, product
from alexnet_jax.sweep.record import SweepRecord
from alexnet_jax.sweep.runner import exec_point
from alexnet_jax.sweep.search import format_space, parse_space

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the sweep: a run folder for each point, and the results.')
_JOBS = flags.DEFINE_integer('jobs', 1, 'Runs at the same time; cores and GPUs are split between them.', lower_bound=1)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Only check the points and print them.')
_COUNT = flags.DEFINE_bool('count', False, 'Only check the points and print how many there are.')
_INDEX = flags.DEFINE_integer('index', None, 'Run only this point, from 0, in this process.', lower_bound=0)
_TABLE = flags.DEFINE_bool('table', False, 'Only write the results of the runs so far.')
_REPORT = flags.DEFINE_bool('report', False, 'Write report.html too: the best six settings, by alexnet report.')
_SEARCH = flags.DEFINE_enum('search', None, ['optuna'], 'Library that proposes the points.')
_TRIALS = flags.DEFINE_integer('trials', 40, 'Points of a search, those of earlier starts included.', lower_bound=1)
_MODULE = flags.DEFINE_string('module', MODULE, 'The module that runs a point.')
flags.mark_flag_as_required('config')

_sweep_options: dict[str, str] = {}  # {KEY: VALUES} of --sweep.KEY=VALUES


def parse(argv: list[str]) -> list[str]:
    """Takes out the options --sweep.KEY=VALUES, which absl does not know, and parses the rest."""
    rest, options = split_options(argv)
    _sweep_options.update(options)
    return parse_config_flags(rest)


def main(_: list[str]) -> int:
    """Checks the points, then runs, lists or tabulates them as the flags say; returns the exit code."""
    logging.set_verbosity(logging.WARNING)  # TFDS logs every step it takes
    flag, root = flags.FLAGS['config'], pathlib.Path(_WORKDIR.value or '')
    common = format_options(config_flags.get_override_values(flag))
    plan = Plan(root, config_flags.get_config_filename(flag), common, _CONFIG.value, _MODULE.value)
    if _SEARCH.value:
        if _COUNT.value or _DRY_RUN.value or _INDEX.value is not None:
            raise InputError('--search makes its points up as it goes: no --count, --dry_run or --index')
        points = []
    else:
        axes = (each(key, parse_values(plan.base, key, text)) for key, text in _sweep_options.items())
        points = check_points(plan.base, product(load_sweep(plan.file) or [{}], *axes))
    if _COUNT.value:
        print(len(points))
        return 0
    if not _WORKDIR.value:
        raise InputError('--workdir is missing: the folder of the sweep')
    if _DRY_RUN.value:
        for index, point in enumerate(points):
            print(f'{index}  {point.name}')
        print(f'the first: {shlex.join(["python", *plan.make_command(points[0])[1:]])}')
        return 0
    if _INDEX.value is not None and _INDEX.value >= len(points):
        raise InputError(f'--index={_INDEX.value}: there are {len(points)} points, the last is {len(points) - 1}')
    space = parse_space(plan.base, _sweep_options) if _SEARCH.value else None
    record = SweepRecord(plan, points, search=None if space is None else format_space(space))
    if _INDEX.value is not None:
        exec_point(plan, points[_INDEX.value])
        return 0
    from alexnet_jax.sweep import execute  # after the checks, because it imports Matplotlib

    code = 0
    if not _TABLE.value:
        code = execute.run_sweep(plan, record, points, space, jobs=_JOBS.value, trials=_TRIALS.value)
    command = shlex.join(['alexnet', 'sweep', *(arg for arg in sys.argv[1:] if arg != '--table')])
    print(execute.write_results(record, title=root.name, command=command), flush=True)
    if _REPORT.value and code != INTERRUPTED:
        execute.write_best_runs_report(record)
    if code == INTERRUPTED:
        print('interrupted: the same command goes on', file=sys.stderr)
    return code
