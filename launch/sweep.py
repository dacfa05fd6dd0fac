"""Runs one config many times, with other values each time, and compares what comes of it.

    python -m launch.sweep --config=configs/two_device.py --workdir=runs/rates \\
        --sweep.learning_rate=0.001,0.003,0.01 --sweep.seed=0,1,2 --jobs=2
    python -m launch.sweep --config=FILE.py --workdir=runs/x                    FILE.py defines sweep()
    python -m launch.sweep --config=... --workdir=runs/y --search=optuna --trials=40 \\
        --sweep.learning_rate=log:1e-4..1e-1 --sweep.momentum=0.8..0.99 --sweep.batch_size=16,32,64

--sweep.KEY=VALUES is multiplied with the others and with the config's sweep(); values that are tuples are separated by
semicolons ('--sweep.mesh=1,1;1,2'). --config.KEY=VALUE holds for all runs. A search takes ranges, and no sweep().
All points are checked before the first run. Each has a folder in --workdir and beside it NAME.log. The same command
again skips what is finished and goes on with the rest. At the end: results.csv, results.md, results.png, and with
--report a page that compares the best settings. --index=I becomes run I, for job arrays: launch/slurm_sweep.sbatch.
Exit codes are alexnet_jax.main's: 0 all finished, 1 some failed, 75 lost, 76 told to stop. docs/sweeps.md has more.
"""

import functools
import pathlib
import shlex
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from alexnet_jax import INTERRUPTED, InputError
from alexnet_jax.sweeping.plan import Plan, check, options_of, own_sweep, split_options, values_of
from alexnet_jax.sweeping.points import each, product
from alexnet_jax.training.command_line import parse

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the sweep: a run folder for each point, and the results.')
_JOBS = flags.DEFINE_integer('jobs', 1, 'Runs at the same time; they share cores and GPUs out.', lower_bound=1)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Only check the points and print them.')
_COUNT = flags.DEFINE_bool('count', False, 'Only check the points and print how many there are.')
_INDEX = flags.DEFINE_integer('index', None, 'Become the run of this point, from 0.', lower_bound=0)
_TABLE = flags.DEFINE_bool('table', False, 'Only write the results of what is there.')
_REPORT = flags.DEFINE_bool('report', False, 'Write report.html too: the best six settings, by alexnet_jax.report.')
_SEARCH = flags.DEFINE_enum('search', None, ['optuna'], 'Let this choose the points.')
_TRIALS = flags.DEFINE_integer('trials', 40, 'Points of a search, those of earlier starts included.', lower_bound=1)
_MODULE = flags.DEFINE_string('module', 'alexnet_jax.main', 'The module that runs a point.')
flags.mark_flag_as_required('config')


def main(argv: list[str], *, sweep: dict[str, str]) -> None:
    """Checks the points, then does with them what the flags say."""
    del argv
    logging.set_verbosity(logging.WARNING)  # TFDS tells every step it takes
    try:
        sys.exit(_main(sweep))
    except InputError as error:
        sys.exit(f'error: {error}')


def _main(sweep: dict[str, str]) -> int:
    flag = flags.FLAGS['config']
    common = options_of(config_flags.get_override_values(flag))
    plan = Plan(config_flags.get_config_filename(flag), common, _CONFIG.value)
    if _SEARCH.value:
        if _COUNT.value or _DRY_RUN.value or _INDEX.value is not None:
            raise InputError('--search makes its points up as it goes: no --count, --dry_run or --index')
        points = []
    else:
        own = own_sweep(plan.file) or [{}]
        points = check(plan.base, product(own, *(each(key, values_of(plan.base, key, sweep[key])) for key in sweep)))
    if _COUNT.value:
        print(len(points))
        return 0
    if not _WORKDIR.value:
        raise InputError('--workdir is missing: the folder of the sweep')
    root = pathlib.Path(_WORKDIR.value)
    command = functools.partial(plan.command, root=root, module=_MODULE.value)
    if _DRY_RUN.value:
        for index, point in enumerate(points):
            print(f'{index}  {point.name}')
        print(f'the first: {shlex.join(["python", *command(points[0])[1:]])}')
        return 0
    from alexnet_jax.sweeping import start  # after the checks, which need no JAX

    again = shlex.join(['python', '-m', 'launch.sweep', *(arg for arg in sys.argv[1:] if arg != '--table')])
    if _INDEX.value is not None:
        return start.task(root, plan, points, index=_INDEX.value, command=command)
    sweeping = start.Sweep(root, plan, points, texts=sweep if _SEARCH.value else None, command=command, again=again)
    code = 0 if _TABLE.value else sweeping.run(jobs=_JOBS.value, trials=_TRIALS.value)
    print(sweeping.results(), flush=True)
    if _REPORT.value and code != INTERRUPTED:
        sweeping.report()
    if code == INTERRUPTED:
        print('interrupted: the same command goes on', file=sys.stderr)
    return code


if __name__ == '__main__':
    try:
        _rest, _sweep = split_options(sys.argv)
    except InputError as _error:
        sys.exit(f'error: {_error}')
    app.run(functools.partial(main, sweep=_sweep), argv=_rest, flags_parser=parse)
