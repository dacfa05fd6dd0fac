"""Trains AlexNet.

    python -m alexnet_jax.main --config=configs/two_device.py                    the embedded dataset
    python -m alexnet_jax.main --config=configs/two_device.py:NAME               a dataset made by alexnet_jax.prepare
    python -m alexnet_jax.main --config=configs/two_device.py --config.seed=1    any value of the config, overridden

The same command again goes on from the last checkpoint in --workdir. All values: alexnet_jax/training/config.py.
"""

import json
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from alexnet_jax import InputError
from alexnet_jax.parallel.allocator import tune_allocator
from alexnet_jax.training.command_line import parse
from alexnet_jax.training.startup import StartUp

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Run folder: config, logs, checkpoints, result.json. Default: runs/CONFIG_DATASET.'
)
_JSON = flags.DEFINE_bool('json', False, 'Print the result as one JSON object, the last line of standard output.')
flags.mark_flag_as_required('config')


def main(argv: list[str]) -> None:
    """Checks the config, opens what the run needs and hands over to training.loop."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step they take
    try:
        result = _run()
    except InputError as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted: the same command goes on from the last checkpoint')
    if _JSON.value:
        print(json.dumps(result))


def _run() -> dict:
    start_up = StartUp()
    config = _CONFIG.value
    from alexnet_jax.training.config import validate

    validate(config)
    file = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config']).split(':')[0]).stem
    workdir = pathlib.Path(_WORKDIR.value or f'runs/{file}_{config.dataset}')
    tune_allocator()  # before anything imports jax
    from alexnet_jax.evaluation.evaluate import Evaluator
    from alexnet_jax.parallel.devices import prepare_backend
    from alexnet_jax.parallel.mesh import make_mesh
    from alexnet_jax.training import loop
    from alexnet_jax.training import workdir as folders
    from alexnet_jax.training.recipe import dtype_of, variant_of

    start_up.lap('imports')
    prepare_backend(config.mesh)
    mesh = make_mesh(*config.mesh)
    start_up.lap('devices')
    dataset = folders.open_or_render(config.dataset, config.data_dir)
    folders.claim(workdir, config, dataset, mesh)
    evaluate = Evaluator(
        variant_of(config),
        mesh,
        dataset.records('validation'),
        num_classes=len(dataset.classes),
        batch_size=config.batch_size,
        dtype=dtype_of(config),
    )
    start_up.lap('dataset')
    return loop.run(config, dataset=dataset, mesh=mesh, evaluate=evaluate, workdir=workdir, start_up=start_up)


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
