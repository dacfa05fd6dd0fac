"""Prints who talks to whom in a training step, read from the traced and from the compiled program.

    python -m alexnet_jax.audit --config=configs/two_device.py:imagenet2012
    python -m alexnet_jax.audit --config=configs/two_device.py --config.mesh=2,2 --json
    python -m alexnet_jax.audit --config=configs/two_device.py:imagenet2012 --parameters

Nothing is trained and no data is read: only shapes are needed.
"""

import dataclasses
import json
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from alexnet_jax import InputError
from alexnet_jax.training.command_line import parse

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_CLASSES = flags.DEFINE_integer('classes', 1000, 'Outputs of fc8.', lower_bound=1)
_PARAMETERS = flags.DEFINE_bool('parameters', False, 'Only count parameters and arithmetic: compiles nothing.')
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object, the last line of standard output.')
flags.mark_flag_as_required('config')


def main(argv: list[str]) -> None:
    """Reads the schedule of the config's training step and prints it."""
    del argv
    logging.set_verbosity(logging.WARNING)
    try:
        report, text = _audit()
    except InputError as error:
        sys.exit(f'error: {error}')
    print(text)
    if _JSON.value:
        print(json.dumps(report))


def _audit() -> tuple[dict, str]:
    from alexnet_jax.training import audit
    from alexnet_jax.training import config as configs

    config = _CONFIG.value
    configs.validate(config)
    sizes = audit.sizes(config, num_classes=_CLASSES.value)
    report = {
        'devices': config.mesh[0] * config.mesh[1],
        'parameters': sum(row.weights + row.biases for row in sizes),
        'macs': sum(row.macs for row in sizes),
    }
    text = audit.size_table(sizes)
    if not _PARAMETERS.value:
        found = audit.schedules(config, num_classes=_CLASSES.value)
        text += '\n\n' + audit.schedule_table(found)
        report |= {
            name: [dataclasses.asdict(message) for message in getattr(found, name)]
            for name in ('traced', 'compiled', 'automatic')
        }
    return report, text


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
