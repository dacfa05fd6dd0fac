"""Why does it not learn? Looks at the data and at some real training steps, and names the cause and the remedy.

    alexnet doctor --config=configs/two_device.py       what this config would train
    alexnet doctor --config=configs/two_device.py:NAME --config.learning_rate=0.1
    alexnet doctor --workdir=runs/NAME                  a run where it stands, by its newest checkpoint

It makes --steps training steps and throws them away: nothing in a run folder is changed. Exit code 0 where nothing was
found, 3 where something was, 1 where it could not look. docs/doctor.md has what it knows, and from which figures.
"""

import json
import pathlib
import sys

from absl import flags, logging
from ml_collections import config_flags

from alexnet_jax.commands.command_line import parse_config_flags
from alexnet_jax.console import info
from alexnet_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'A run folder, instead of --config.')
_STEPS = flags.DEFINE_integer('steps', 20, 'Training steps to look at.', lower_bound=1, upper_bound=1000)
_JSON = flags.DEFINE_bool('json', False, 'Print the measurements too, as one JSON object, the last line.')
_FOUND = 3  # exit code
parse = parse_config_flags


def main(_: list[str]) -> None:
    """Diagnoses what the flags name."""
    logging.set_verbosity(logging.ERROR)
    if (_CONFIG.value is None) == (_WORKDIR.value is None):
        raise InputError('give --config=FILE.py, or --workdir=runs/NAME, one of them')
    from alexnet_jax.sharding.backend import tune_allocator

    tune_allocator()  # before anything imports jax
    from alexnet_jax.doctor import examine, screen
    from alexnet_jax.training.validation import validate_config

    if _WORKDIR.value is not None:
        diagnosis = examine.examine_workdir(pathlib.Path(_WORKDIR.value), steps=_STEPS.value, info=info)
    else:
        name = config_flags.get_config_filename(flags.FLAGS['config'])
        diagnosis = examine.examine_config(validate_config(_CONFIG.value), name=name, steps=_STEPS.value, info=info)
    print(screen.format_screen(diagnosis))
    if _JSON.value:
        print(json.dumps(screen.make_json(diagnosis)))
    sys.exit(_FOUND if diagnosis.findings else 0)
