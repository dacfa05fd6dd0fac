"""A TensorFlow process that is measured: python tests/peers/tf_worker.py FORM SETTING, see benchmark.protocol."""

import functools
import os
import sys

from alexnet_jax.benchmark import protocol
from alexnet_jax.benchmark.sampling import Program


def main(form: str, argument: str) -> None:
    """Reads the setting's records and photographs by tf.data, in `form`, one of tf_data.FORMS; answers requests."""
    setting, answers = protocol.begin(argument)
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    import tensorflow as tf  # after `begin`, which sets the allocator
    import tf_data

    from alexnet_jax.benchmark.input_stages import Files
    from alexnet_jax.data.pipeline import READ_AHEAD
    from alexnet_jax.data.source import open_dataset

    records = open_dataset(setting.dataset, data_dir=setting.data_dir).records('train')
    folder, path = tf_data.temporary_records(records)
    options = {'batch': setting.batch, 'dct_method': tf_data.FORMS[form], 'threads': os.cpu_count()}
    iterators = {
        'pipeline': tf_data.record_batches(path, **options),
        'photo_pipeline': tf_data.photo_batches(Files(setting.photos).paths, **options),
    }
    programs = {
        name: Program(functools.partial(next, iterator), settle=functools.partial(_take, iterator, 2 * READ_AHEAD))
        for name, iterator in iterators.items()
    }
    with folder:
        protocol.serve(answers, programs, versions={'tensorflow': tf.__version__})


def _take(iterator, count: int) -> None:
    for _ in range(count):
        next(iterator)


if __name__ == '__main__':
    main(*sys.argv[1:])
