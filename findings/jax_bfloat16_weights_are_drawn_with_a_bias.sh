#!/usr/bin/env bash
# jax 0.10.2: weights that are drawn in bfloat16 have a mean of -0.018 standard deviations, which leaves 8 % of the units of
# AlexNet's first fully connected layer active where float32 weights leave 50 %.
#
# Guess: an initialiser with dtype=bfloat16 (Flax's param_dtype) gives the numbers of a float32 initialiser, rounded: symmetric
#        around 0, with the usual tails and some thousands of different values.
# Seen: the uniform number beneath is drawn in bfloat16: one of 128 values, 0, 1/128, ..., 127/128, whose mean is 0.496. The
#       initialisers of jax.nn.initializers then have 128 different weights, a range that is cut (normal: -2.9 to 2.5 standard
#       deviations) and a negative mean. Over the 9,216 non-negative inputs of fc6 the mean adds up to some 1.3 standard
#       deviations of the units' inputs, and ReLU ends most units before training began. In float16 42 % are left. Loss and shapes
#       look as they should, and a small layer does not show it.
# What to do: draw in float32 and cast: lambda key, shape, dtype: init(key, shape, jnp.float32).astype(dtype).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np

# What fc6 gets: 6 x 6 x 256 activations after ReLU and pooling, none below 0.
images = np.abs(np.random.default_rng(1).normal(size=(8, 9216)))


def measure(initialiser, dtype):
    """Returns (mean in standard deviations, number of different weights, share of units that are active)."""
    kernel = np.asarray(initialiser(jax.random.key(0), (9216, 256), dtype), np.float64)
    return float(kernel.mean() / kernel.std()), len(np.unique(kernel)), float((images @ kernel > 0).mean())


initialisers = {
    'lecun_normal (the default of Flax)': jax.nn.initializers.lecun_normal(),
    'normal(0.01)': jax.nn.initializers.normal(0.01),
}
for name, initialiser in initialisers.items():
    for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
        mean, values, active = measure(initialiser, dtype)
        print(f'{name}, {dtype.__name__}: mean {mean:+.4f} std, {values} different weights, {active:.0%} active')
        if dtype == jnp.float32:
            assert abs(mean) < 0.002 and 0.45 < active < 0.55
        elif dtype == jnp.bfloat16:
            assert mean < -0.01 and values == 128 and active < 0.22
    rounded = measure(lambda key, shape, dtype: initialiser(key, shape, jnp.float32).astype(dtype), jnp.bfloat16)
    print(f'{name}, rounded to bfloat16: mean {rounded[0]:+.4f} std, {rounded[1]} different weights, {rounded[2]:.0%} active')
    assert abs(rounded[0]) < 0.002 and rounded[1] > 1000 and 0.45 < rounded[2] < 0.55

normal = np.asarray(jax.random.normal(jax.random.key(0), (200_000,), jnp.bfloat16), np.float32)
print(f'jax.random.normal: {normal.min():.2f} to {normal.max():.2f}')
assert normal.max() < 2.6 and normal.min() > -3
PYTHON
echo 'unchanged: bfloat16 weights of jax 0.10.2 have a negative mean'
