"""How long a checkpoint of the full network holds up training, and how long writing it takes behind its back.

python -m experiments.save_pause [--folder=DIR]    about a minute; 60,965,224 parameters and as many momenta, 488 MB
"""

import argparse
import pathlib
import statistics
import tempfile
import time

from alexnet_jax.sharding.backend import tune_allocator

tune_allocator()

import numpy as np  # noqa: E402

from alexnet_jax.checkpoints.checkpointer import Checkpointer  # noqa: E402
from alexnet_jax.model.zoo import VARIANTS  # noqa: E402
from alexnet_jax.sharding.backend import prepare_backend  # noqa: E402
from alexnet_jax.sharding.mesh import make_mesh, replicate  # noqa: E402
from alexnet_jax.training.optimizer import paper_sgd  # noqa: E402
from alexnet_jax.training.state import create_state  # noqa: E402

SAVES = 7


def main() -> None:
    """Saves a few times, waiting for each to be written, and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', help='where to write; default: a temporary folder')
    given = parser.parse_args()
    prepare_backend((1, 2))
    mesh, optimizer = make_mesh(1, 2), paper_sgd(momentum=0.9, weight_decay=5e-4, bias_rate=1.0)
    mean = np.full((224, 224, 3), 120.0)
    state = create_state(VARIANTS['paper'], optimizer, mesh, num_classes=1000, mean_image=mean, seed=0)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder, Checkpointer(pathlib.Path(folder), keep=1) as saved:
        pauses, whole = [], []
        for step in range(1, SAVES + 1):
            state = type(state)(**{**vars(state), 'step': replicate(mesh, np.int32(step))})
            began = time.perf_counter()
            saved.save(state)
            pauses.append(time.perf_counter() - began)
            saved.wait()
            whole.append(time.perf_counter() - began)
    for name, seconds in (('training waits', pauses), ('until it is on disk', whole)):
        print(f'{name}: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s')


if __name__ == '__main__':
    main()
