"""Prints who talks to whom in a training step, read from the traced and from the compiled program.

    alexnet audit --config=configs/two_device.py:imagenet2012
    alexnet audit --config=configs/two_device.py --config.mesh=2,2 --json
    alexnet audit --config=configs/two_device.py:imagenet2012 --parameters

For TPUs that are not here (pip install 'alexnet-jax[tpu]'), with their memory and a predicted time; a minute each:

    alexnet audit --config=configs/hybrid.py:imagenet2012 --config.mesh=128,2 --topology=v5e:16x16
    alexnet audit --config=configs/hybrid.py:imagenet2012 --topology=v5e --chips=1,2,4,8,16,32,64,128,256

For NVIDIA GPUs that are not here (pip install 'alexnet-jax[gpu-compiler]'), a host of two, or two hosts of four:

    alexnet audit --config=configs/two_device.py:imagenet2012 --topology=h100:2
    alexnet audit --config=configs/hybrid.py:imagenet2012 --config.mesh=4,2 --topology=h100:2x4
    alexnet audit --config=configs/hybrid.py:imagenet2012 --topology=b200 --chips=1,2,4,8,16,32,64

Nothing is trained and no data is read: only shapes are needed.
"""

import json

from absl import flags, logging
from ml_collections import config_flags

from alexnet_jax.commands.command_line import parse_config_flags

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_CLASSES = flags.DEFINE_integer('classes', 1000, 'Outputs of fc8.', lower_bound=1)
_PARAMETERS = flags.DEFINE_bool('parameters', False, 'Only count parameters and arithmetic: compiles nothing.')
_TOPOLOGY = flags.DEFINE_string(
    'topology', None, 'TPUs or GPUs that are not here: v5e:16x16, h100:2, h100:2x4; with --chips v5e or h100.'
)
_CHIPS = flags.DEFINE_list('chips', None, 'A table over so many chips: 1,2,4,...,256.')
_SCALING = flags.DEFINE_enum('scaling', 'weak', ['weak', 'strong'], '--chips: config.batch_size a chip, or of all.')
_OUTPUT = flags.DEFINE_string('output', None, '--chips: a JSON file that keeps what was compiled, for the next time.')
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object, the last line of standard output.')
flags.mark_flag_as_required('config')
parse = parse_config_flags


def main(_: list[str]) -> None:
    """Prints the schedule of the config's training step."""
    logging.set_verbosity(logging.WARNING)
    report, text = _audit()
    print(text)
    if _JSON.value:
        print(json.dumps(report))


def _audit() -> tuple[dict, str]:
    from alexnet_jax.communication import audit, cost_model, gpu_report, scaling
    from alexnet_jax.communication.gpus import is_gpu
    from alexnet_jax.sharding.backend import prepare_backend
    from alexnet_jax.training.build import build_run
    from alexnet_jax.training.validation import validate_config

    config, classes, topology = validate_config(_CONFIG.value), _CLASSES.value, _TOPOLOGY.value
    if _CHIPS.value:
        options = {'scaling': _SCALING.value, 'output': _OUTPUT.value}
        return scaling.report_scaling(config, topology, _CHIPS.value, num_classes=classes, **options)
    report, text = audit.size_report(config, num_classes=classes)
    if _PARAMETERS.value:
        return report, text
    if is_gpu(topology):
        more, table = gpu_report.report_gpus(config, topology, num_classes=classes)
    elif topology:
        more, table = cost_model.report_prediction(config, topology, num_classes=classes)
    else:
        prepare_backend(config.mesh)
        more, table = audit.schedule_report(build_run(config, num_classes=classes, examples=1))  # no data is read
    return report | more, f'{text}\n\n{table}'
