"""What this machine can do at most: large float32 matrix products, and moving memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.benchmark.sampling import Program

SIDE = 3072  # of the square matrices
FLOATS = 2**25  # of one array: 128 MiB, several times the largest cache


def programs() -> dict[str, Program]:
    """'gemm_numpy' and 'gemm_xla'; 'copy' (x -> z) and 'add' (x + y -> z) with a thread for each core.

    Bytes are counted as the STREAM benchmark does: each array once.

    Without the compiler options of the training step: they concern convolutions and small products.
    """
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    product = np.empty_like(a)
    device_a, device_b, multiply = jnp.asarray(a), jnp.asarray(b), jax.jit(jnp.matmul)
    x, y, z = (np.ones(FLOATS, np.float32) for _ in range(3))
    threads = os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads)
    parts = [slice(FLOATS * i // threads, FLOATS * (i + 1) // threads) for i in range(threads)]

    def copy() -> None:
        list(pool.map(lambda part: np.copyto(z[part], x[part]), parts))

    def add() -> None:
        list(pool.map(lambda part: np.add(x[part], y[part], out=z[part]), parts))

    return {
        'gemm_numpy': Program(lambda: np.matmul(a, b, out=product), flop=2 * SIDE**3),
        'gemm_xla': Program(lambda: jax.block_until_ready(multiply(device_a, device_b)), flop=2 * SIDE**3),
        'copy': Program(copy, moved=2 * x.nbytes),
        'add': Program(add, moved=3 * x.nbytes),
    }
