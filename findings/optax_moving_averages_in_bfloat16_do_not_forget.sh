#!/usr/bin/env bash
# optax 0.2.8: with bfloat16 parameters Adam's second moment only ever grows: ten large gradients at the start leave all later
# steps a tenth of their size; optax.ema(0.999) of 10,000 ones and then 10,000 zeros is 0.5.
#
# Guess: moments in bfloat16 are noisy to a percent or so; they follow the gradients as float32 ones do.
# Seen: the decay is a Python number, so it takes the array's dtype, where 0.999 is 1.0, and 1 - decay, which is taken before, stays
#       0.001. What is added is never taken away, until additions are below half a unit in the last place and the average
#       stands still for good, at a half for ones. Adam's b2 = 0.999 is this. Its steps are 1.5 times too large for constant
#       gradients and a tenth of what they should be after a warm-up with gradients 100 times larger; in float32 the past is
#       forgotten after 10,000 steps. Losses fall, nothing is NaN. mu_dtype=float32 is for the first moment alone. 0.99 is
#       0.988 and settles at 0.84 of the truth. (The parameters take no part: it is as with scale_by_adam alone.)
# What to do: keep parameters in float32 and cast in the forward pass; ema(accumulator_dtype=jnp.float32) for averages.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 20_000


def run(transformation, dtype, values):
    """Returns what a transformation gives for each of the values, one a step."""

    def step(state, value):
        update, state = transformation.update(value[None], state)
        return state, update[0]

    values = jnp.asarray(values, dtype)
    return np.asarray(jax.lax.scan(step, transformation.init(values[:1]), values)[1], np.float64)


constant = np.full(STEPS, 0.1)
early = np.where(np.arange(STEPS) < 10, 10, constant)  # ten large gradients, then small ones
falling = np.arange(STEPS) < STEPS // 2  # ones, then zeros
found = {}
for dtype in ('float32', 'bfloat16'):
    found[dtype] = {
        'Adam, constant gradients': run(optax.scale_by_adam(), dtype, constant)[-1],
        'Adam, ten large gradients first': run(optax.scale_by_adam(), dtype, early)[-1],
        'Adam with mu_dtype=float32, the same': run(optax.scale_by_adam(mu_dtype='float32'), dtype, early)[-1],
        'ema(0.999) of 10,000 ones': run(optax.ema(0.999), dtype, falling)[STEPS // 2 - 1],
        'ema(0.999) of 10,000 zeros after them': run(optax.ema(0.999), dtype, falling)[-1],
        'ema(0.99) of 10,000 ones': run(optax.ema(0.99), dtype, falling)[STEPS // 2 - 1],
        'ema(0.999, accumulator_dtype=float32) of the ones': run(
            optax.ema(0.999, accumulator_dtype=jnp.float32), dtype, falling
        )[STEPS // 2 - 1],
    }
for name in found['float32']:
    print(f'{name}: {found["float32"][name]:.4f} in float32, {found["bfloat16"][name]:.4f} in bfloat16')
np.testing.assert_allclose(list(found['float32'].values()), [1, 1, 1, 1, 0, 1, 1], atol=2e-4)
constant, early, mixed, ones, zeros, short, wide = found['bfloat16'].values()
assert 1.4 < constant < 1.6 and 0.08 < early < 0.12 and 0.08 < mixed < 0.12
assert ones == 0.5 and zeros == 0.5 and 0.8 < short < 0.87
assert abs(wide - 1) < 0.01
PYTHON
echo 'unchanged: moving averages of optax 0.2.8 do not forget in bfloat16'
