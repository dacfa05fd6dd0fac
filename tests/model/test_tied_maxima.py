"""The pooling of experiments/tied_maxima.py, which is cuda-convnet's, against loops over windows."""

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.model import ops
from alexnet_jax.model.spec import MaxPool
from experiments.tied_maxima import max_pool


def test_max_pool_gives_its_gradient_to_every_maximum_and_ours_to_the_first():
    """Whole numbers from 0 to 3, so that most windows have several maxima."""
    random = np.random.default_rng(0)
    x, upstream = random.integers(0, 4, (2, 9, 9, 3)).astype(np.float32), random.normal(size=(2, 4, 4, 3))
    every, first = np.zeros(x.shape), np.zeros(x.shape)
    for n, r, c, k in np.ndindex(*upstream.shape):
        window = x[n, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3, k]
        places = np.argwhere(window == window.max())
        for i, j in places:
            every[n, 2 * r + i, 2 * c + j, k] += upstream[n, r, c, k]
        i, j = places[0]
        first[n, 2 * r + i, 2 * c + j, k] += upstream[n, r, c, k]
    assert np.abs(every - first).max() > 1
    for pool, expected in ((max_pool, every), (ops.max_pool, first)):
        _, backward = jax.vjp(lambda x, pool=pool: pool(x, MaxPool()), jnp.asarray(x))
        np.testing.assert_allclose(backward(jnp.asarray(upstream, jnp.float32))[0], expected, atol=1e-5)
