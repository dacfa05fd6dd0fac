#!/usr/bin/env bash
# optax 0.2.8: clip_by_global_norm turns finite float16 gradients whose norm is past 256 into exact zeros.
#
# Guess: gradients of a norm past max_norm are scaled to max_norm, whatever the dtype; NaN would show a norm that overflows.
# Seen: squares and sum are taken in the gradients' own dtype. Past 256 the sum is past float16's 65504, the norm is inf, and
#       gradient / inf * max_norm is 0: nothing is trained, and nothing tells: all that goes in and comes out is finite, and
#       apply_if_finite counts no error. At 250 the update has norm 1. This is what scaled losses give: with a scale of 1024 a
#       gradient of norm 0.3 is there. In float32 the same happens to a norm of 3e19, and for one inf among the gradients
#       all others become 0.
# What to do: cast gradients to float32, and take the scale out, before they are clipped.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax.numpy as jnp
import numpy as np
import optax

optimizer = optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)), max_consecutive_errors=5)


def step(dtype, *gradients):
    """Returns the update's elements after one step, and how many errors apply_if_finite counted."""
    tree = {'kernel': jnp.asarray(gradients, dtype)}
    updates, state = optimizer.update(tree, optimizer.init(tree))
    found = np.asarray(updates['kernel'], np.float64)
    print(f'{dtype} gradients {gradients}: update {found.tolist()}, errors {int(state.total_notfinite)}')
    return found, int(state.total_notfinite)


found, errors = step('float16', 150.0, 200.0)  # norm 250
assert np.allclose(found, [-0.6, -0.8], atol=1e-3) and errors == 0
found, errors = step('float16', 180.0, 240.0)  # norm 300
assert not found.any() and errors == 0
for dtype in ('bfloat16', 'float32'):
    found, errors = step(dtype, 180.0, 240.0)
    assert np.allclose(found, [-0.6, -0.8], atol=5e-3) and errors == 0
found, errors = step('float32', 1.8e19, 2.4e19)  # finite, as its norm 3e19 would be
assert not found.any() and errors == 0
clip = optax.clip_by_global_norm(1.0)
found = clip.update(jnp.array([jnp.inf, 3.0, 4.0]), clip.init(None))[0]
print('one inf among 3 and 4:', found)
assert jnp.isnan(found[0]) and not found[1:].any()
PYTHON
echo 'unchanged: clip_by_global_norm of optax 0.2.8 makes zeros of float16 gradients past a norm of 256'
