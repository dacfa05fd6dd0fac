"""What corrupting images costs: images/s of testing them in the centre view, as they are and corrupted at severity 3.

    python -m experiments.corruption_cost --dataset=NAME [--data_dir=data] [--variant=released] [--images=512]

Takes a network of random weights, for whose speed they do not matter. With the extra `corruptions`, frost is among
them, and the library's own milliseconds an image, on one thread, stand beside ours.
"""

import importlib.util
import statistics
import time

import jax
import numpy as np
from absl import app, flags

from alexnet_jax.console import align_columns
from alexnet_jax.data.corrupted import CorruptedSource, PixelSource
from alexnet_jax.data.corruption_constants import CORRUPTIONS
from alexnet_jax.data.corruptions import corrupt
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.evaluation.open_networks import make_evaluator
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import make_mesh

_DATASET = flags.DEFINE_string('dataset', None, 'A prepared dataset.', required=True)
_DATA_DIR = flags.DEFINE_string('data_dir', 'data', 'Where it is.')
_VARIANT = flags.DEFINE_string('variant', 'released', 'Which network.')
_IMAGES = flags.DEFINE_integer('images', 512, 'How many of its training images, at most.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'How often each is tested; medians are shown.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch_size', 64, 'Images at once.', lower_bound=1)
SEVERITY = 3


class First(PixelSource):
    """The first records of a source."""

    def __init__(self, source, count, size):
        super().__init__(np.zeros(count, np.int32), preprocessing=source.preprocessing)
        self._source, self._size, self.threads = source, size, 2

    def read(self, index):
        return read_whole_image(self._source, index, record_size=self._size)


def main(_: list[str]) -> None:
    """Measures, and prints a table."""
    prepare_backend((1, 1))
    dataset, name = open_dataset(_DATASET.value, data_dir=_DATA_DIR.value), NetworkName(_VARIANT.value)
    variant, size = name.build(), dataset.check_variant(name.build()).record_size
    params = jax.device_get(init_parameters(variant, jax.random.key(0), num_classes=10))
    mean = np.full((variant.input_size,) * 2 + (3,), 120, np.float32)
    network = Network(name=name, params=params, mean_image=mean, classes=tuple('0123456789'), source='random')
    source = dataset.records('train')
    first = First(source, min(_IMAGES.value, len(source)), size)
    evaluator, placed = make_evaluator(network, make_mesh(1, 1), first, batch_size=_BATCH.value)

    def measure(records):
        """Images a second, and CPU milliseconds an image, of all threads."""
        test = evaluator.with_records(records)
        wall, cpu = time.perf_counter(), time.process_time()
        test(*placed, protocol='centre')
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return len(records) / wall, 1000 * cpu / len(records)

    measure(first)  # compiles
    image, own = read_whole_image(source, 0, record_size=size), importlib.util.find_spec('imagecorruptions') is not None
    names = [one for one in CORRUPTIONS if own or one != 'frost']
    speeds = {'clean': []} | {one: [] for one in names}
    for _round in range(_ROUNDS.value):
        for one, speed in speeds.items():
            records = first if one == 'clean' else CorruptedSource(first, one, SEVERITY, seed=0, record_size=size)
            speed.append(measure(records))
    medians = {one: [statistics.median(column) for column in zip(*found, strict=True)] for one, found in speeds.items()}
    clean, clean_cpu = medians['clean']
    rows = [['', 'images/s', 'of clean', 'CPU ms', 'of clean', 'alone, ms', *(['library, ms'] if own else [])]]
    for one, (speed, cpu) in medians.items():
        rows.append([one, f'{speed:.1f}', f'{speed / clean:.2f}', f'{cpu:.1f}', f'{cpu / clean_cpu:.2f}'])
        if one != 'clean':
            rows[-1].append(f'{_time(lambda one=one: corrupt(image, one, SEVERITY, np.random.default_rng(0))):.1f}')
        if one != 'clean' and own:
            rows[-1].append(f'{_time(lambda one=one: _corrupt_by_library(image, one)):.1f}')
    rows[1] += [''] * (len(rows[0]) - len(rows[1]))  # of clean images, nothing was corrupted
    print(align_columns(rows, right=tuple(range(1, len(rows[0])))))
    shares, inverse = [medians[one][0] / clean for one in names], [clean_cpu / medians[one][1] for one in names]
    print(f'images/s, mean of the corruptions: {statistics.mean(shares):.2f} of clean; least {min(shares):.2f}')
    print(f'images per CPU second, the same: {statistics.mean(inverse):.2f} of clean; least {min(inverse):.2f}')


def _corrupt_by_library(image, name):
    import imagecorruptions

    return imagecorruptions.corrupt(image, corruption_name=name, severity=SEVERITY)


def _time(function) -> float:
    """Milliseconds of CPU, the median of five calls after one."""
    function()
    found = []
    for _round in range(5):
        began = time.thread_time()
        function()
        found.append(1000 * (time.thread_time() - began))
    return statistics.median(found)


if __name__ == '__main__':
    app.run(main)
