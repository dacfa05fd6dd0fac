"""Eight virtual CPU devices for every test, set before JAX starts its backend; a tiny prepared dataset."""

import os

import cli
import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preparing import folder
from alexnet_jax.data.preparing.rewriting import make_rewriting_spec
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.sharding.backend import prepare_backend

os.environ |= {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': cli.COMPILE_LESS['XLA_FLAGS']}
jax.config.update('jax_disable_most_optimizations', True)
prepare_backend((4, 2))

TINY_COLOURS = {'blue': (50, 50, 200), 'green': (50, 200, 50), 'red': (200, 50, 50)}
TINY_COUNTS = {'train': 40, 'validation': 13}  # 8 divides the one and not the other


@pytest.fixture(scope='session')
def tiny_dir(tmp_path_factory):
    """A data_dir with one dataset, 'tiny': blotches around a colour of their class."""
    images = tmp_path_factory.mktemp('images')
    for split, count in TINY_COUNTS.items():
        for i in range(count):
            name, colour = list(TINY_COLOURS.items())[i % 3]
            blotches = np.random.default_rng([i, count]).normal(colour, 40, (8, 8, 3)).clip(0, 255)
            (images / split / name).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(blotches.astype(np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
            image.save(images / split / name / f'{i}.png')
    data_dir = tmp_path_factory.mktemp('data')
    prepare(folder.make_folder_spec(images, name='tiny'), data_dir=data_dir, workers=1)
    return data_dir


@pytest.fixture(scope='session')
def tiny(tiny_dir):
    """'tiny', opened: 40 training and 13 validation images in 3 classes."""
    return open_dataset('tiny', data_dir=tiny_dir)


@pytest.fixture(scope='session')
def tiny_raw(tiny, tmp_path_factory):
    """The same records as pixels, as `prepare --from=tiny --encoding=raw` rewrites them."""
    data_dir = tmp_path_factory.mktemp('raw')
    prepare(make_rewriting_spec(tiny, name='tiny_raw'), data_dir=data_dir, workers=1)
    return open_dataset('tiny_raw', data_dir=data_dir)


@pytest.fixture(scope='session')
def program_cache(tmp_path_factory):
    """XDG_CACHE_HOME of all processes that tests start: what one compiles, the next finds, also of another worker."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'cache'
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope='module')
def optimised():
    """Programs as XLA compiles them by default: for what compares bits of two programs, or runs for long in float64."""
    jax.clear_caches()
    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', True)
    jax.clear_caches()
