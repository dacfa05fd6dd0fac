#!/usr/bin/env bash
# jax 0.10.2: split(key, n)[i] and fold_in(key, i) are one key, so are the first keys of any two splits, and the checker of key
# reuse finds nothing wrong with it.
#
# Guess: keys that come from one key in two ways are independent of each other; what jax.debug_key_reuse lets pass is safe.
# Seen: for threefry, the default, and for rbg, the two functions hash the same counter. init_key, step_key = split(key) beside
#       fold_in(key, step) gives step 0 the key of the initial weights; hosts told apart by split(key, hosts)[host] and
#       epochs by fold_in(key, epoch) share keys where host and epoch are equal. Numbers drawn with both are the same to the last
#       bit. It is so since jax_threefry_partitionable became the default (pull request 13341 of jax wanted it); with the
#       old setting all keys differ. The checker takes fold_in for a new seed and does not count it as a use of its key.
# What to do: derive every key from one root in one way, fold_in with one list of numbers, or split first and fold into the parts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import numpy as np


def pairs_equal(implementation):
    """Returns for i in 0..3 whether split(key, 4)[i] is fold_in(key, i), and whether split(key, 2) begins split(key, 4)."""
    key = jax.random.key(7, impl=implementation)
    four = np.asarray(jax.random.key_data(jax.random.split(key, 4)))
    folded = np.stack([jax.random.key_data(jax.random.fold_in(key, i)) for i in range(4)])
    prefix = np.array_equal(jax.random.key_data(jax.random.split(key, 2)), four[:2])
    return (four == folded).all(1).tolist(), prefix


for implementation in ('threefry2x32', 'rbg'):
    found = pairs_equal(implementation)
    print(implementation, found)
    assert found == ([True] * 4, True), found

jax.config.update('jax_threefry_partitionable', False)
found = pairs_equal('threefry2x32')
print('threefry2x32, not partitionable', found)
assert found == ([False] * 4, False), found
jax.config.update('jax_threefry_partitionable', True)

# What a training program does: weights from one key, the dropout mask of step 0 from another.
with jax.debug_key_reuse(True):
    root = jax.random.key(0)
    step_keys = [jax.random.fold_in(root, step) for step in range(2)]
    masks = [jax.random.uniform(key, (1000,)) for key in step_keys]
    init_key, data_key = jax.random.split(root)
    weights = jax.random.uniform(init_key, (1000,))
    order = jax.random.permutation(data_key, 1000)
    try:  # the checker is on: it does object to a key that is drawn from twice
        jax.random.uniform(init_key, (1000,))
        raise SystemExit('key reuse was not found')
    except jax.errors.KeyReuseError:
        pass
assert np.array_equal(weights, masks[0]) and not np.array_equal(weights, masks[1])
print('weights and the mask of step 0 are the same 1000 numbers; no complaint')
PYTHON
echo 'unchanged: split and fold_in of jax 0.10.2 give the same keys'
