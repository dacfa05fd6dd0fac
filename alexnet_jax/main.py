"""Trains AlexNet.

    python -m alexnet_jax.main --config=configs/two_device.py                    the embedded dataset
    python -m alexnet_jax.main --config=configs/two_device.py:NAME               a dataset made by alexnet_jax.prepare
    python -m alexnet_jax.main --config=configs/two_device.py --config.seed=1    any value of the config, overridden

The same command again goes on from the last checkpoint in --workdir. All values: alexnet_jax/training/config.py.
Several hosts run the same command each; under SLURM, Kubernetes and on TPU pods they find one another. Exit codes: 0
done, 1 error, 75 another process was lost (start all again), 76 told to stop and saved: alexnet_jax/running/ending.py.
"""

import json
import pathlib
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from alexnet_jax import INTERRUPTED
from alexnet_jax.parallel.allocator import tune_allocator
from alexnet_jax.running import process_flags
from alexnet_jax.running.ending import Ending
from alexnet_jax.training.command_line import parse
from alexnet_jax.training.startup import StartUp

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Run folder: config, logs, checkpoints, result.json. Default: runs/CONFIG_DATASET.'
)
_JSON = flags.DEFINE_bool('json', False, 'Print the result as one JSON object, the last line of standard output.')
_GROUP, _TIMES = process_flags.define()
flags.mark_flag_as_required('config')


def main(argv: list[str]) -> None:
    """Checks the config, opens what the run needs and hands over to training.loop."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step they take
    signal.signal(signal.SIGTERM, _leave)  # until training takes it: a container's first process would not hear it
    ending = Ending()
    result = ending.of(lambda: _run(ending))
    if _JSON.value:
        print(json.dumps(result))


def _leave(*_: object) -> None:
    print('interrupted by SIGTERM: nothing new to save; the same command goes on', file=sys.stderr)
    sys.exit(INTERRUPTED)


def _run(ending: Ending) -> dict:
    start_up = StartUp()
    config = _CONFIG.value
    from alexnet_jax.training.config import validate

    validate(config)
    file = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config']).split(':')[0]).stem
    tune_allocator()  # before anything imports jax
    from alexnet_jax.running.train import train

    return train(
        config,
        workdir=pathlib.Path(_WORKDIR.value or f'runs/{file}_{config.dataset}'),
        group=_GROUP(),
        **_TIMES(),
        ending=ending,
        start_up=start_up,
    )


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
