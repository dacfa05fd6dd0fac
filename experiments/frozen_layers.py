"""What freezing layers saves of a training step: time and memory, beside the step in which all learn, in one process.

python -m experiments.frozen_layers [--variant=released] [--batch=128]    a few minutes on two cores
"""

import argparse
import statistics
import time

from alexnet_jax.sharding.backend import tune_allocator

tune_allocator()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from alexnet_jax.sharding.backend import prepare_backend  # noqa: E402
from alexnet_jax.sharding.mesh import place_batch  # noqa: E402
from alexnet_jax.training.build import build_run  # noqa: E402
from alexnet_jax.training.config import make_config  # noqa: E402
from alexnet_jax.training.step import Batch  # noqa: E402
from alexnet_jax.training.validation import validate_config  # noqa: E402

CONVS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
ROUNDS, CLASSES = 5, 1000


def make_step(variant: str, batch_size: int, frozen: tuple[str, ...]):
    """Returns (compiled step, its state, its batch), on one device at full width."""
    config = make_config('any', mesh=(1, 1))
    config.update(variant=variant, batch_size=batch_size, frozen=frozen, schedule='steps')
    run = build_run(validate_config(config), num_classes=CLASSES, examples=100_000)
    size, random = run.variant.input_size, np.random.default_rng(0)
    images = random.integers(256, size=(batch_size, size, size, 3), dtype=np.uint8)
    labels = random.integers(CLASSES, size=batch_size, dtype=np.int32)
    batch = place_batch(run.mesh, Batch(images, labels, np.zeros((batch_size, 3), np.float32)))
    state = run.create_state(np.full((size, size, 3), 127.5, np.float32))
    return run.make_train_step().lower(state, batch).compile(), state, batch


def main() -> None:
    """Makes steps of both in turn, and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--variant', default='released')
    parser.add_argument('--batch', type=int, default=128)
    given = parser.parse_args()
    prepare_backend((1, 1))
    cases = {name: make_step(given.variant, given.batch, layers) for name, layers in (('all', ()), ('fc6-8', CONVS))}
    seconds = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name, (step, state, batch) in cases.items():
            began = time.perf_counter()
            state, metrics = jax.block_until_ready(step(state, batch))
            assert np.isfinite(metrics['loss'])
            cases[name] = step, state, batch
            if number:  # the first still fills caches
                seconds[name].append(time.perf_counter() - began)
    peaks = {}
    for name, (step, _, _) in cases.items():
        memory = step.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        peaks[name] = held + memory.temp_size_in_bytes
        times = seconds[name]
        print(
            f'{name:6} learn: {statistics.median(times):.3f} s a step ({min(times):.3f} to {max(times):.3f}), '
            f'{peaks[name] / 1e6:,.0f} MB, {held / 1e6:,.0f} of it state and batch'
        )
    speed = statistics.median(seconds['all']) / statistics.median(seconds['fc6-8'])
    memory = peaks['fc6-8'] / peaks['all']
    print(f'{given.variant}, batch {given.batch}: {speed:.2f} times as fast, {memory:.2f} of the memory')


if __name__ == '__main__':
    main()
