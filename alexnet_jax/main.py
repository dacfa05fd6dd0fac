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

from absl import app, flags, logging
from ml_collections import config_flags

from alexnet_jax.parallel.allocator import tune_allocator
from alexnet_jax.running.ending import Ending
from alexnet_jax.training.command_line import parse
from alexnet_jax.training.startup import StartUp

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, FILE.py or FILE.py:DATASET.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Run folder: config, logs, checkpoints, result.json. Default: runs/CONFIG_DATASET.'
)
_JSON = flags.DEFINE_bool('json', False, 'Print the result as one JSON object, the last line of standard output.')
_PROCESSES = flags.DEFINE_integer('processes', None, 'Processes of this run, of all hosts together.', lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.', lower_bound=0)
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, where they meet.')
_CLUSTER = flags.DEFINE_string('cluster', 'auto', 'Who tells the rest: slurm, kubernetes, tpu, none, or auto.')
_JOIN = flags.DEFINE_integer('join_timeout', 300, 'Seconds to wait for the others to come.', lower_bound=1)
_HEARTBEAT = flags.DEFINE_integer(
    'heartbeat', 10, 'Seconds without a sign of life after which a process is lost.', lower_bound=10, upper_bound=30
)
flags.mark_flag_as_required('config')


def main(argv: list[str]) -> None:
    """Checks the config, opens what the run needs and hands over to training.loop."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step they take
    ending = Ending()
    result = ending.of(lambda: _run(ending))
    if _JSON.value:
        print(json.dumps(result))


def _run(ending: Ending) -> dict:
    start_up = StartUp()
    config = _CONFIG.value
    from alexnet_jax.training.config import validate

    validate(config)
    file = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config']).split(':')[0]).stem
    tune_allocator()  # before anything imports jax
    from alexnet_jax.parallel.processes import find_group
    from alexnet_jax.running.train import train

    group = find_group(
        _CLUSTER.value,
        coordinator=_COORDINATOR.value,
        processes=_PROCESSES.value,
        process_id=_PROCESS_ID.value,
    )
    return train(
        config,
        workdir=pathlib.Path(_WORKDIR.value or f'runs/{file}_{config.dataset}'),
        group=group,
        heartbeat=_HEARTBEAT.value,
        join_timeout=_JOIN.value,
        ending=ending,
        start_up=start_up,
    )


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
