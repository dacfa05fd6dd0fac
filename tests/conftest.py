"""Eight virtual CPU devices for every test, set before JAX starts its backend."""

import os

from alexnet_jax.parallel.devices import prepare_backend

os.environ['JAX_PLATFORMS'] = 'cpu'
prepare_backend((4, 2))
