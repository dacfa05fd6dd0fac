"""What a look into a step costs beside the step: the two programs in turn, on one batch of noise.

    python -m experiments.probe_cost [--config=FILE.py:NAME] [--config.KEY=VALUE ...]

Prints medians, and the share that looks add to a run with --config.probe_every=100.
"""

import os
import statistics
import time

import jax
import numpy as np
from absl import app
from ml_collections import config_flags

from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import place_batch
from alexnet_jax.training.build import build_run
from alexnet_jax.training.layer_probe import make_layer_probe
from alexnet_jax.training.step import Batch
from alexnet_jax.training.validation import validate_config

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/two_device.py')
ROUNDS, EVERY = 15, 100


def main(_: list[str]) -> None:
    """Measures both programs of the run that --config describes."""
    config = validate_config(_CONFIG.value)
    prepare_backend(config.mesh)
    run, random = build_run(config, num_classes=10, examples=1000), np.random.default_rng(0)
    rows, size = config.batch_size, run.variant.input_size
    state = run.create_state(np.full((run.variant.mean_size,) * 2 + (3,), 120, np.float32))
    images = random.integers(0, 256, (rows, size, size, 3), np.uint8)
    labels = random.integers(0, 10, rows).astype(np.int32)
    batch = place_batch(run.mesh, Batch(images, labels, np.zeros((rows, 3), np.float32), np.zeros((rows, 3), np.int32)))
    step = run.make_train_step().lower(state, batch).compile()
    probe = make_layer_probe(run).lower(state, batch).compile()
    steps, looks = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready(probe(state, batch))
        between = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        looks.append(between - began)
        steps.append(time.perf_counter() - between)
    took, looked = statistics.median(steps[2:]), statistics.median(looks[2:])
    print(f'{run.variant.name}, width {config.width:g}, batch {rows}, mesh {config.mesh}, {os.cpu_count()} cores:')
    print(f'a step {took:.3f} s, a look {looked:.3f} s; one every {EVERY} steps adds {looked / (EVERY * took):.2%}')


if __name__ == '__main__':
    app.run(main)
