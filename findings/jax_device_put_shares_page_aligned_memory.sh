#!/usr/bin/env bash
# jax 0.10.2 on the CPU: device_put of a NumPy array that begins at a multiple of 64 bytes is the same memory, with
# may_alias=False too. (0.12.0.1, for Python 3.12, does the same.)
#
# Guess: device_put returns "a copy of x that resides on device", as its docstring says, and may_alias=False ("x will be
#        copied") makes sure of it; the function to be wary of is jnp.asarray. A short test shows whether memory is shared.
# Seen: where the address is a multiple of 64 the jax.Array is NumPy's buffer, and later writes to it change an array that
#       cannot change. Files that are mapped and multiprocessing's shared memory begin at a page, so they are shared; a large
#       np.zeros begins 16 bytes behind one, so a test with arrays from NumPy passes. A loader that fills a slot of shared
#       memory again then trains on another batch than it handed over. jnp.asarray and jnp.array copy. (Issue 37830 of jax has
#       the sharing.)
# What to do: jnp.array where the memory is written to again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import gc
from multiprocessing import shared_memory

import jax
import jax.numpy as jnp
import numpy as np

functions = {
    'device_put': jax.device_put,
    'device_put, may_alias=False': lambda batch: jax.device_put(batch, may_alias=False),
    'jnp.asarray': jnp.asarray,
    'jnp.array': jnp.array,
}


def look(kind, slot):
    """Returns what each function's array holds after the slot, full of ones when it was handed over, was filled with twos."""
    found = {}
    for name, function in functions.items():
        slot[:] = 1
        array = jax.block_until_ready(function(slot))
        slot[:] = 2
        found[name] = int(array[0])
    print(f'{kind}, address % 64 = {slot.ctypes.data % 64}:', found)
    return list(found.values())


block = shared_memory.SharedMemory(create=True, size=4096)
try:
    in_shared = look('shared memory', np.ndarray(4096, np.uint8, block.buf))
finally:
    block.unlink()
np.zeros(4096, np.uint8).tofile('records')
in_file = look('mapped file', np.memmap('records', np.uint8, 'r+'))
buffer = np.zeros(4096 + 64, np.uint8)
start = (16 - buffer.ctypes.data) % 64  # where a large np.zeros begins
elsewhere = look('array of NumPy', buffer[start:][:4096])
gc.collect()
block.close()
assert in_shared == in_file == [2, 2, 1, 1], (in_shared, in_file)
assert elsewhere == [1, 1, 1, 1], elsewhere
PYTHON
echo 'unchanged: device_put on the CPU shares memory that begins at a multiple of 64 bytes, with may_alias=False too'
