"""Prints who talks to whom in a training step, read from the traced and from the compiled program.

    python -m alexnet_jax.audit --config=configs/two_device.py:imagenet2012
    python -m alexnet_jax.audit --config=configs/two_device.py --config.mesh=2,2 --json
    python -m alexnet_jax.audit --config=configs/two_device.py:imagenet2012 --parameters

For TPUs that are not here (pip install -r requirements-tpu.txt), with their memory and a predicted time; a minute each:

    python -m alexnet_jax.audit --config=configs/hybrid.py:imagenet2012 --config.mesh=128,2 --topology=v5e:16x16
    python -m alexnet_jax.audit --config=configs/hybrid.py:imagenet2012 --topology=v5e --chips=1,2,4,8,16,32,64,128,256

Nothing is trained and no data is read: only shapes are needed.
"""

import functools
import json
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from alexnet_jax import InputError
from alexnet_jax.training.command_line import parse

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_CLASSES = flags.DEFINE_integer('classes', 1000, 'Outputs of fc8.', lower_bound=1)
_PARAMETERS = flags.DEFINE_bool('parameters', False, 'Only count parameters and arithmetic: compiles nothing.')
_TOPOLOGY = flags.DEFINE_string('topology', None, 'TPUs that are not here: v5e:16x16, or v5e with --chips.')
_CHIPS = flags.DEFINE_list('chips', None, 'A table over so many chips: 1,2,4,...,256.')
_SCALING = flags.DEFINE_enum('scaling', 'weak', ['weak', 'strong'], '--chips: config.batch_size a chip, or of all.')
_OUTPUT = flags.DEFINE_string('output', None, '--chips: a JSON file that keeps what was compiled, for the next time.')
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
    from alexnet_jax.training import audit, prediction, scaling
    from alexnet_jax.training import config as configs

    config, classes, topology = _CONFIG.value, _CLASSES.value, _TOPOLOGY.value
    configs.validate(config)
    if _CHIPS.value:
        say = functools.partial(print, file=sys.stderr, flush=True)
        options = {'scaling': _SCALING.value, 'output': _OUTPUT.value, 'say': say}
        return scaling.report(config, topology, _CHIPS.value, num_classes=classes, **options)
    report, text = audit.size_report(config, num_classes=classes)
    if _PARAMETERS.value:
        return report, text
    if topology:
        more, table = prediction.report(config, topology, num_classes=classes)
    else:
        more, table = audit.schedule_report(config, num_classes=classes)
    return report | more, f'{text}\n\n{table}'


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
