#!/usr/bin/env bash
# jax 0.10.2 on the CPU: average pooling of bfloat16 maps adds in bfloat16, so a window of 32x32 ones has the average 0.25; jnp.mean
# of the same pixels is 1. So nn.avg_pool of Flax, hk.avg_pool of Haiku and AvgPool2d of Equinox.
#
# Guess: XLA's reductions add bfloat16 in float32 and round once, as jnp.sum and jnp.mean do; global average pooling and a mean
#        over height and width are the same thing.
# Seen: reduce_window rounds after every addition, and a running sum of ones stops at 256. Up to 16x16 it is a matter of a
#       percent, so heads on 7x7 maps show nothing; 32x32 maps after ReLU come out 9 % too dark, flat ones at a quarter.
#       Constant, bright areas lose most, so it is no factor that training could take up. float16 is right until its sum passes
#       65504: 32x32 pixels of 100 give inf.
# What to do: jnp.mean over height and width for global pooling; x.astype(jnp.float32) before pooling by larger windows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 dm-haiku==0.0.17 \
    equinox==0.13.8 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

POOLS = {
    'flax.linen.avg_pool': lambda x, size: nn.avg_pool(x, (size, size)),
    'hk.avg_pool': lambda x, size: hk.avg_pool(x, (size, size, 1), 1, 'VALID'),
    'eqx.nn.AvgPool2d': lambda x, size: jax.vmap(eqx.nn.AvgPool2d(size))(x.transpose(0, 3, 1, 2)),
    'jnp.mean': lambda x, size: jnp.mean(x, (1, 2)),
}


def pool(name, x):
    """Returns the averages of maps (images, size, size, channels) by one library, compiled, in float64."""
    return np.asarray(jax.jit(POOLS[name], static_argnums=1)(x, x.shape[1]), np.float64).ravel()


rng = np.random.default_rng(0)
for size in (7, 16, 32):
    ones = jnp.ones((1, size, size, 1), jnp.bfloat16)
    maps = jnp.asarray(np.maximum(rng.normal(size=(1, size, size, 64)), 0), jnp.bfloat16)
    truth = np.asarray(maps, np.float64).mean((1, 2)).ravel()
    for name in POOLS:
        flat, ratio = pool(name, ones)[0], (pool(name, maps) / truth).mean()
        print(f'{name}, {size}x{size}: ones {flat}, activations {ratio:.3f} of the truth')
        if name == 'jnp.mean' or size == 7:
            assert flat == 1 and abs(ratio - 1) < 0.003
        elif size == 16:
            assert flat == 1 and 0.98 < ratio < 0.998
        else:
            assert flat == 0.25 and ratio < 0.95

half = jnp.full((1, 32, 32, 1), 100, jnp.float16)
assert pool('jnp.mean', half)[0] == 100 and np.isinf(pool('flax.linen.avg_pool', half)[0])
PYTHON
echo 'unchanged: average pooling of jax 0.10.2 adds bfloat16 in bfloat16'
