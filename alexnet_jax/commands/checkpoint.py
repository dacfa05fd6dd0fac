"""Looks at the checkpoints of a run.

    alexnet checkpoint list --workdir=runs/NAME                 step, time, size, validation error of each
    alexnet checkpoint verify --workdir=runs/NAME               reads all, compares each array's sha256
    alexnet checkpoint export --workdir=runs/NAME --to=W.npz    weights and mean image, for NumPy

Exit code 1 where `verify` finds one that is damaged. Resuming a run verifies too, and goes back to the newest that is
whole by itself.
"""

import pathlib
import sys

from absl import flags, logging

from alexnet_jax.commands.command_line import parse_arguments
from alexnet_jax.errors import InputError

_WORKDIR = flags.DEFINE_string('workdir', None, 'The run folder.')
_STEP = flags.DEFINE_integer('step', None, 'export: which checkpoint. Default: the newest.', lower_bound=0)
_TO = flags.DEFINE_string('to', None, 'export: the file to write, FILE.npz.')
flags.mark_flag_as_required('workdir')
parse = parse_arguments


def main(argv: list[str]) -> None:
    """Does one of the three."""
    logging.set_verbosity(logging.ERROR)
    what, workdir = ' '.join(argv[1:]), pathlib.Path(_WORKDIR.value)
    if what not in ('list', 'verify', 'export'):
        raise InputError(f'{what or "nothing"} cannot be done: give list, verify or export')
    if what == 'export' and not (_TO.value or '').endswith('.npz'):
        raise InputError(f'--to={_TO.value}: name the file to write, --to=FILE.npz')
    from alexnet_jax.checkpoints import inspect

    if what == 'export':
        print(inspect.export_npz(workdir, step=_STEP.value, to=pathlib.Path(_TO.value)))
        return
    table, whole = inspect.format_checkpoints(workdir, verify=what == 'verify')
    print(table)
    sys.exit(not whole)
