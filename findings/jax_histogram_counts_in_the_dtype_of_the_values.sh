#!/usr/bin/env bash
# jax 0.10.2: jnp.histogram counts in the dtype of its values, so no bin of bfloat16 values passes 256, of float16 values 2048, of
# float32 values 16,777,216; a cumulative count by it is wrong too, and nothing tells.
#
# Guess: counts are integers, as NumPy's are, or at least sums in float32, which is how jnp.sum of the same values adds.
# Seen: the counts are a scatter-add of ones in the values' dtype, and 256 + 1 is 256 in bfloat16. 100,000 activations of a
#       bfloat16 network in 10 bins come out as 10 times 256: a flat histogram, whatever their distribution; with density=True
#       it is one that integrates to 1. jnp.bincount with weights and jax.ops.segment_sum stop at the same numbers; jnp.bincount
#       without weights, jnp.sum and jnp.cumsum do not. A dead layer and a saturated one then look alike on the dashboard.
# What to do: cast to float32 before, or histogram in NumPy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np

# ReLU of normal numbers: half are 0, and the bins above fall off.
values = np.maximum(np.random.default_rng(0).normal(size=100_000), 0).clip(max=2).astype(np.float32)
EDGES = np.linspace(0, 2, 5, dtype=np.float32)  # exact in every dtype here
for dtype, most in ((jnp.float32, 2**24), (jnp.float16, 2048), (jnp.bfloat16, 256)):
    x = jnp.asarray(values, dtype)
    truth = np.histogram(np.asarray(x, np.float32), EDGES)[0]
    counts, edges = jnp.histogram(x, jnp.asarray(EDGES, dtype))
    print(f'{counts.dtype}: {[int(n) for n in counts]}, of {truth.tolist()}')
    assert counts.dtype == dtype and np.array_equal(np.asarray(edges, np.float32), EDGES)
    assert np.array_equal(np.asarray(counts, np.int64), np.minimum(truth, most))

flat, _ = jnp.histogram(x, jnp.asarray(EDGES, jnp.bfloat16), density=True)
assert set(np.asarray(flat, np.float32)) == {0.5}, flat
print('density in bfloat16:', [float(n) for n in flat])

ones, zeros = jnp.ones(5000, jnp.bfloat16), jnp.zeros(5000, jnp.int32)
assert jnp.bincount(zeros, weights=ones, length=1)[0] == 256 and jax.ops.segment_sum(ones, zeros, 1)[0] == 256
assert jnp.bincount(zeros, length=1)[0] == 5000 and jnp.sum(ones) == jnp.bfloat16(5000)
PYTHON
echo 'unchanged: jnp.histogram of jax 0.10.2 stops counting at 256 in bfloat16'
