"""Should each tower's device get its images from the host, or the second one from the first?

    python -m experiments.tower_copies

Milliseconds until a batch of 128 crops is on both devices of a replica, two of the machine's or two virtual ones of
a CPU, medians of interleaved rounds. docs/data.md holds the result.
"""

import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.sharding.mesh import batch_spec, make_mesh, place_batch

ROUNDS, CALLS = 9, 8


def main() -> None:
    """Measures and prints."""
    prepare_backend((1, 2))
    mesh = make_mesh(1, 2)
    images = np.random.default_rng(0).integers(256, size=(128, 224, 224, 3), dtype=np.uint8)
    both, first = (NamedSharding(m, batch_spec(mesh)) for m in (mesh, Mesh(mesh.devices[:, :1], mesh.axis_names)))
    forms: dict[str, Callable[[], jax.Array]] = {
        'from the host to each': lambda: place_batch(mesh, images),
        'to the first, from it to the second': lambda: jax.device_put(jax.device_put(images, first), both),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(ROUNDS + 1):
        for name, place in forms.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                placed = jax.block_until_ready(place())
            seconds[name].append((time.perf_counter() - began) / CALLS)
            if number == 0:  # and this round is not counted
                del seconds[name][0]
                assert all(np.array_equal(shard.data, images) for shard in placed.addressable_shards)
    print(f'{len(mesh.devices.flat)} x {mesh.devices.flat[0].device_kind}, {images.nbytes / 1e6:.1f} MB')
    for name, times in seconds.items():
        low, median, high = statistics.quantiles(times, n=4)
        print(f'    {name:38}{median * 1e3:7.2f} ms ({low * 1e3:.2f}-{high * 1e3:.2f})')


if __name__ == '__main__':
    main()
