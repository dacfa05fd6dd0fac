#!/usr/bin/env bash
# numpy 2.4.6 with ml_dtypes 0.6.0 (the bfloat16 of JAX, TensorFlow and safetensors): np.mean of bfloat16 numbers stops adding
# at a few hundred; the mean of 10,000 losses of 2.3 is 0.1, where np.mean of the same jax.Array is right.
#
# Guess: np.mean adds float16 in float32, as its documentation says, and np.sum adds pairwise; bfloat16 is at least as well off.
# Seen: NumPy does neither for a dtype that is not its own: one running bfloat16 sum, element after element, which cannot pass
#       256 by ones. np.std, np.average and np.cumsum go the same way. np.mean of a jax.Array is JAX's own
#       mean, so it matters whether jax.device_get, np.asarray or np.load stands between: a log of per-step losses, an accuracy
#       of 50,000 zeros and ones (0.005 for 0.6), a mean image. float8 stops at 16, and the sum of 1,000 ones in int4 is -8.
#       Short arrays, which tests have, are right.
# What to do: dtype=np.float32 in every mean and sum, or .astype(np.float32) where arrays leave the device.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0 jax==0.10.2 jaxlib==0.10.2
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

rng = np.random.default_rng(0)


def compare(name, values, function):
    """Returns (truth, of bfloat16 on the host, of float16 on the host, of the jax.Array) of one function of the values."""
    device = jnp.asarray(values, jnp.bfloat16)
    host = jax.device_get(device)
    assert host.dtype == ml_dtypes.bfloat16 and isinstance(host, np.ndarray)
    found = [float(function(x)) for x in (host.astype(np.float64), host, host.astype(np.float16), device)]
    print(f'{name}: {found[0]:.4f}; host bfloat16 {found[1]:.4f}, host float16 {found[2]:.4f}, jax.Array {found[3]:.4f}')
    for right in found[2:]:
        assert abs(right / found[0] - 1) < 0.01
    return found[0], found[1]


losses = rng.normal(2.3, 0.3, 10_000)
truth, found = compare('mean of 10,000 losses', losses, np.mean)
assert found < 0.05 * truth
truth, found = compare('mean of 100 losses', losses[:100], np.mean)
assert abs(found / truth - 1) < 0.05
truth, found = compare('standard deviation of 10,000 losses', losses, np.std)
assert found > 2 * truth
truth, found = compare('accuracy of 50,000 images', rng.random(50_000) < 0.6, np.mean)
assert found == np.float32(ml_dtypes.bfloat16(256 / 50_000))

host = losses.astype(ml_dtypes.bfloat16)
assert abs(host.mean(dtype=np.float32) / losses.mean() - 1) < 0.001
for dtype, most in (('bfloat16', 256), ('float8_e4m3fn', 16), ('int4', -8)):
    found = int(np.ones(1000, getattr(ml_dtypes, dtype)).sum())
    print(f'sum of 1,000 ones in {dtype}: {found}')
    assert found == most
assert np.ones(10_000, np.float16).sum() == 10_000
PYTHON
echo 'unchanged: numpy 2.4.6 adds bfloat16 numbers in bfloat16'
