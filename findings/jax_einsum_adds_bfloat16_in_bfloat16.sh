#!/usr/bin/env bash
# jax 0.10.2 on the CPU: jnp.einsum adds an index of one operand alone in bfloat16, where jnp.sum and a matrix product add in
# float32; the head einsum('bhwc,ck->bk', maps, weights) on 56x56 maps of ones gives a third of its scores.
#
# Guess: einsum is another way to write sum and dot, with the same sums beneath: float32 inside, one rounding at the end.
# Seen: an index that no other operand has is summed away before the product, by a reduction of einsum's own that keeps bfloat16.
#       einsum('bhwc->b') of 200,704 ones is 2,048, in float16 16,384 where jnp.sum says inf; with jit and without. Maps after ReLU
#       lose 5 % in a pooling of 56x56, and more the brighter they are; an index that is in two operands, which is a product,
#       is right. So a rewrite of mean and dense as one einsum changes the scores, and only in half precision, and only for
#       large maps.
# What to do: preferred_element_type=jnp.float32 in every einsum (right here), or sum with jnp.sum first.
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

WEIGHTS = np.ones((64, 1))
WAYS = {
    "einsum('bhwc->b')": lambda x: jnp.einsum('bhwc->b', x),
    'sum over h, w, c': lambda x: jnp.sum(x, (1, 2, 3)),
    "einsum('bhwc,ck->bk')": lambda x: jnp.einsum('bhwc,ck->bk', x, jnp.asarray(WEIGHTS, x.dtype))[:, 0],
    'sum over h, w, then dot': lambda x: (jnp.sum(x, (1, 2)) @ jnp.asarray(WEIGHTS, x.dtype))[:, 0],
    "einsum('bhwc,ck->bk'), preferred float32": lambda x: jnp.einsum(
        'bhwc,ck->bk', x, jnp.asarray(WEIGHTS, x.dtype), preferred_element_type=jnp.float32
    )[:, 0],
}


def measure(way, x):
    """Returns a way's sum of the first image, as a share of the true one; with jit and without it is the same."""
    found = [float(function(x)[0]) for function in (WAYS[way], jax.jit(WAYS[way]))]
    assert found[0] == found[1], (way, found)
    return found[0] / float(np.asarray(x, np.float64)[0].sum())


rng = np.random.default_rng(0)
shares = {}
for size in (7, 56):
    maps = {
        'ones': np.ones((2, size, size, 64)),
        'activations': np.maximum(rng.normal(size=(2, size, size, 64)), 0),
    }
    for name, values in maps.items():
        for way in WAYS:
            share = shares[way, size, name] = measure(way, jnp.asarray(values, jnp.bfloat16))
            print(f'{size}x{size} {name}, {way}: {share:.3f} of the truth')
            if not way.startswith('einsum') or 'preferred' in way:
                assert abs(share - 1) < 0.01
            assert abs(measure(way, jnp.asarray(values, jnp.float32)) - 1) < 1e-5

assert shares["einsum('bhwc->b')", 56, 'ones'] < 0.02
assert shares["einsum('bhwc,ck->bk')", 56, 'ones'] < 0.4 and abs(shares["einsum('bhwc,ck->bk')", 7, 'ones'] - 1) < 0.01
assert shares["einsum('bhwc,ck->bk')", 56, 'activations'] < 0.97

half = jnp.ones((1, 56, 56, 64), jnp.float16)
print('float16:', float(jnp.einsum('bhwc->b', half)[0]), float(jnp.sum(half)))
assert jnp.einsum('bhwc->b', half)[0] == 16384 and jnp.isinf(jnp.sum(half))
PYTHON
echo 'unchanged: jnp.einsum of jax 0.10.2 adds bfloat16 in bfloat16'
