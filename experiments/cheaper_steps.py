"""What freezing layers, or going through a batch in parts, saves of a training step: time and memory, in one process.

python -m experiments.cheaper_steps [--variant=released] [--batch=128]    conv1 to conv5 frozen; minutes
python -m experiments.cheaper_steps --accumulate=4                        all learn, from four parts
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


def make_step(variant: str, batch_size: int, changes: dict):
    """Returns (compiled step, its state, its batch), on one device at full width, with `changes` of the config."""
    config = make_config('any', mesh=(1, 1))
    config.update({'variant': variant, 'batch_size': batch_size, 'schedule': 'steps'} | changes)
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
    parser.add_argument('--accumulate', type=int, default=1, help='parts of the batch, beside the batch as a whole')
    given = parser.parse_args()
    prepare_backend((1, 1))
    if given.accumulate > 1:
        options = {'whole': {}, 'parts': {'accumulate': given.accumulate}}
    else:
        options = {'all learn': {}, 'fc6-8 learn': {'frozen': CONVS}}
    cases = {name: make_step(given.variant, given.batch, changes) for name, changes in options.items()}
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
            f'{name:11}: {statistics.median(times):.3f} s a step ({min(times):.3f} to {max(times):.3f}), '
            f'{peaks[name] / 1e6:,.0f} MB, {held / 1e6:,.0f} of it state and batch'
        )
    whole, cheaper = cases
    speed = statistics.median(seconds[whole]) / statistics.median(seconds[cheaper])
    memory = peaks[cheaper] / peaks[whole]
    besides = [cases[name][0].memory_analysis().temp_size_in_bytes for name in (cheaper, whole)]
    print(
        f'{given.variant}, batch {given.batch}: {speed:.2f} times as fast, {memory:.2f} of the memory, '
        f'{besides[0] / besides[1]:.2f} of that besides state and batch'
    )


if __name__ == '__main__':
    main()
