#!/usr/bin/env bash
# optax 0.2.8: with bfloat16 parameters, inject_hyperparams(adam) gives NaN from the first step on; adam alone does not.
#
# Guess: inject_hyperparams only puts the learning rate into the state, to be read or changed; the steps stay the same.
# Seen: it makes arrays of all numbers, defaults among them, in the parameters' widest dtype. In bfloat16 Adam's b2 = 0.999 is
#       1.0, the correction 1 - b2^t is 0, and the first update is 0 / 0. A single float32 parameter in the tree, such as a
#       batch normalisation's, hides it, so one network trains and the next, without one, does not.
# What to do: hyperparam_dtype=jnp.float32, or inject the learning rate alone (static_args).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax

half = {'kernel': jnp.ones(2, jnp.bfloat16)}
mixed = {**half, 'scale': jnp.ones(2)}


def update(name, optimizer, parameters):
    gradients = jax.tree.map(lambda leaf: leaf / 8, parameters)
    updates, state = optimizer.update(gradients, optimizer.init(parameters), parameters)
    value, b2 = float(updates['kernel'][0]), getattr(state, 'hyperparams', {}).get('b2')
    print(f'{name}: first update {value:.6f}', '' if b2 is None else f'b2 {float(b2):.6f} in {b2.dtype}')
    return value


injected = optax.inject_hyperparams
assert abs(update('adam', optax.adam(1e-3), half) + 1e-3) < 1e-5
assert jnp.isnan(update('injected', injected(optax.adam)(1e-3), half))
assert jnp.isnan(update('injected adamw', injected(optax.adamw)(1e-3), half))
assert abs(update('injected, one parameter in float32', injected(optax.adam)(1e-3), mixed) + 1e-3) < 1e-5
assert abs(update('injected, float32', injected(optax.adam, hyperparam_dtype=jnp.float32)(1e-3), half) + 1e-3) < 1e-5
names = ('b1', 'b2', 'eps', 'eps_root')
assert abs(update('injected, static_args', injected(optax.adam, static_args=names)(1e-3), half) + 1e-3) < 1e-5
PYTHON
echo 'unchanged: injected hyperparameters of Adam are rounded to bfloat16, and the first step is NaN'
