#!/usr/bin/env bash
# jax 0.10.2 on CPUs: jnp.max and jnp.min of a large array leave NaN out, and so does max-pooling; of a small one they do not.
#
# Guess: NaN in, NaN out, as NumPy has it and as jnp.max's nan-ignoring twin jnp.nanmax implies: max(abs(x)) is how people
#       look for gradients that have diverged, with one device-to-host number.
# Seen: from some ten thousand numbers on, max and min of float32 and min of bfloat16 are those of the other numbers. Of an
#       array that is NaN throughout, the maximum is -inf, and its gradient holds no NaN either. jnp.linalg.norm(x, inf)
#       follows. Max-pooling by windows that do not overlap (2x2 every 2) does it too, 3x3 every 2 does not: a layer that
#       has diverged comes out of the pooling as -inf, out of the ReLU behind it as 0, and the loss is finite. sum, mean
#       and argmax keep NaN. The compiler hands such reductions to a library (a fusion __ynn_fusion in the compiled
#       text), which has IEEE's maxNum; 0.12.0 on Python 3.12 gave the same.
# What to do: jnp.isfinite(x).all() or a sum in place of a maximum; or compile without the library for reductions,
#       XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT, with which NaN is kept.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat >"$folder/look.py" <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np

KEPT = sys.argv[1] == 'kept'  # with the flag


def look(name, found, keeps):
    """Prints a number, and checks whether it is NaN."""
    print(f'  {name}: {float(found)}')
    assert np.isnan(float(found)) == keeps, name


for size, keeps in ((1_000, True), (65_536, KEPT)):
    x = jnp.ones(size).at[size // 2].set(jnp.nan)
    look(f'max of {size} numbers, one of them NaN', jnp.max(x), keeps)
    look(f'min of {size} numbers, one of them NaN', jnp.min(x), keeps)
    look(f'largest magnitude of {size} NaN', jnp.max(jnp.abs(x * jnp.nan)), keeps)
    look(f'norm(x, inf) of {size} numbers', jnp.linalg.norm(x, jnp.inf), keeps)
    look(f'sum of {size} numbers', x.sum(), True)
    assert int(jnp.argmax(x)) == size // 2
    assert np.isnan(np.max(np.asarray(x)))

diverged = jnp.full((1, 64, 64, 16), jnp.nan)
for window, keeps in ((2, KEPT), (3, True)):
    windows = (1, window, window, 1), (1, 2, 2, 1), 'VALID'
    pooled = jax.jit(lambda x, w=windows: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *w))(diverged)
    look(f'sum of the ReLU of NaN pooled {window}x{window} every 2', jax.nn.relu(pooled).sum(), keeps)
PYTHON
cd "$folder"
unset XLA_FLAGS
export JAX_PLATFORMS=cpu
echo 'as it comes'
venv/bin/python look.py lost
echo 'without the library for reductions'
XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT venv/bin/python look.py kept
echo 'unchanged: max of large arrays and max-pooling without overlap of jax 0.10.2 lose NaN on CPUs'
