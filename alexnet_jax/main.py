"""Trains AlexNet.

    python -m alexnet_jax.main --config=configs/two_device.py                    the embedded dataset
    python -m alexnet_jax.main --config=configs/two_device.py:NAME               a dataset made by alexnet prepare
    python -m alexnet_jax.main --config=configs/two_device.py --config.seed=1    any value of the config, overridden

The same command again goes on from the last checkpoint in --workdir. All values: alexnet_jax/training/config.py.
Several hosts run the same command each; under SLURM, Kubernetes and on TPU pods they find one another. Exit codes: 0
done, 1 error, 75 another process lost (start all again), 76 told to stop and saved: alexnet_jax/distributed/exit.py.
"""

from __future__ import annotations

import functools
import gc
import json
import pathlib
import signal
import sys
from typing import TYPE_CHECKING

from alexnet_jax.commands.dispatch import run_verb
from alexnet_jax.commands.interrupts import Interrupts

if __name__ == '__main__':  # before what takes long to import; then this module is imported by its own name
    with Interrupts() as interrupts:
        run_verb('train', sys.argv[1:], interrupts)

from absl import flags, logging
from ml_collections import config_flags

from alexnet_jax.commands import process_flags
from alexnet_jax.commands.command_line import parse_config_flags
from alexnet_jax.distributed.exit import ExitHandler
from alexnet_jax.errors import INTERRUPTED
from alexnet_jax.logs.timing import StartupTimer
from alexnet_jax.sharding.backend import tune_allocator

if TYPE_CHECKING:
    from alexnet_jax.run.kept import Kept

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Run folder: config, logs, checkpoints, result.json. Default: runs/CONFIG_DATASET.'
)
_JSON = flags.DEFINE_bool('json', False, 'Print the result as one JSON object, the last line of standard output.')
_MORE_RUNS = flags.DEFINE_integer('more_runs', None, 'Set by alexnet sweep: the socket that further runs come from.')
_GROUP, _TIMES = process_flags.define()
flags.mark_flag_as_required('config')
parse = parse_config_flags


def main(argv: list[str]) -> None:
    """Checks the config, opens what the run needs and hands over to run.loop; then makes what runs a sweep sends."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step they take
    signal.signal(signal.SIGTERM, _leave)  # until training takes it: a container's first process would not hear it
    exit_handler = ExitHandler()
    result = exit_handler.exit_on_error(lambda: _run(flags.FLAGS, exit_handler, StartupTimer()))
    if _JSON.value:
        print(json.dumps(result))
    if _MORE_RUNS.value is None or _GROUP().count > 1:  # processes find one another once
        return
    from alexnet_jax.sweep.handover import iter_runs

    for arguments in iter_runs(_MORE_RUNS.value):
        startup = StartupTimer(age=0.0)
        gc.collect()  # what the run before held of the devices
        values = _parse_again(arguments)
        exit_handler.exit_on_error(functools.partial(_run, values, exit_handler, startup))


def describe_interrupt() -> str:
    """Describes what is left of the run at Ctrl-C, until training takes that signal too."""
    return 'nothing new to save; the same command goes on'


def _leave(*_: object) -> None:
    print(f'interrupted by SIGTERM: {describe_interrupt()}', file=sys.stderr)
    sys.exit(INTERRUPTED)


def _parse_again(arguments: list[str]) -> flags.FlagValues:
    """Parses --config, --config.KEY and --workdir of a further run; the other flags are those of this process."""
    argv, values = ['alexnet-train', *arguments], flags.FlagValues()
    config_flags.DEFINE_config_file('config', None, flag_values=values, sys_argv=argv)
    flags.DEFINE_string('workdir', None, '', flag_values=values)
    values(argv)
    return values


def _run(values: flags.FlagValues, exit_handler: ExitHandler, startup: StartupTimer) -> dict:
    from alexnet_jax.training.validation import validate_config

    config = validate_config(values.config)
    file = pathlib.Path(config_flags.get_config_filename(values['config']).split(':')[0]).stem
    tune_allocator()  # before anything imports jax
    from alexnet_jax.run.train import train

    return train(
        config,
        workdir=pathlib.Path(values.workdir or f'runs/{file}_{config.dataset}'),
        group=_GROUP(),
        **_TIMES(),
        exit_handler=exit_handler,
        startup=startup,
        kept=_get_kept(),
    )


@functools.cache
def _get_kept() -> Kept:
    from alexnet_jax.run.kept import Kept

    return Kept()
