#!/usr/bin/env bash
# clu 0.0.12 with jax 0.10.2: metrics.Average keeps its total in the dtype of the values, so the mean of bfloat16 losses falls as more
# batches are merged: 2.3 after 50 batches, 1.0 after 1,000.
#
# Guess: the total of a metric that is made to be merged over a whole evaluation is float32, as its count is an integer of its own.
# Seen: each batch is summed well, then 128 x 2.3 = 294 is added to a bfloat16 total, which does not grow once half a unit in its last
#       place is more than that; the count grows on, so the mean falls like 1 / n. The same evaluation on a sample is right, and
#       the longer one looks like the better model. metrics.Accuracy is float32 and right, so loss and accuracy part. Average
#       of flax.nnx (flax 0.12.8) has a float32 total. (metrics.Std raises TypeError with this jax: it calls jnp.clip by old names.)
# What to do: losses.astype(jnp.float32) before from_model_output.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check clu==0.0.12 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from flax import nnx

BATCH = 128
LOSSES = np.random.default_rng(0).normal(2.3, 0.3, (1000, BATCH))


@jax.jit
def merge(total, losses):
    return total.merge(metrics.Average.from_model_output(values=losses))


def average(dtype, batches):
    """Returns the means after each of some numbers of batches, as an evaluation loop merges them."""
    total, found = metrics.Average.from_model_output(values=jnp.asarray(LOSSES[0], dtype)), {}
    for index in range(1, max(batches) + 1):
        if index in batches:
            found[index] = float(total.compute())
        if index < max(batches):
            total = merge(total, jnp.asarray(LOSSES[index], dtype))
    assert total.total.dtype == dtype and int(total.count) == max(batches) * BATCH
    return found


found = {dtype: average(dtype, (1, 50, 200, 1000)) for dtype in ('float32', 'bfloat16')}
print(found)
assert all(abs(mean / 2.3 - 1) < 0.01 for mean in found['float32'].values())
assert abs(found['bfloat16'][1] / 2.3 - 1) < 0.01 and found['bfloat16'][1000] < 0.6 * 2.3

other = nnx.metrics.Average()
for losses in LOSSES[:100]:
    other.update(values=jnp.asarray(losses, jnp.bfloat16))
assert abs(float(other.compute()) / 2.3 - 1) < 0.01

logits, labels = jnp.eye(10, dtype=jnp.bfloat16), jnp.arange(10)
accuracy = metrics.Accuracy.from_model_output(logits=logits, labels=labels)
assert accuracy.total.dtype == jnp.float32
try:
    metrics.Std.from_model_output(values=jnp.arange(4.0)).compute()
except TypeError as error:
    print('Std:', error)
else:
    raise SystemExit('Std works now')
PYTHON
echo 'unchanged: the total of metrics.Average of clu 0.0.12 is bfloat16'
