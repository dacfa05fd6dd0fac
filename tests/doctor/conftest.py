"""Fixtures of the diagnosed cases: a small network, and a dataset from which labels can be told."""

import functools

import numpy as np
import pytest
from conftest import TINY_COLOURS
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preparing import folder
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.doctor import network_stats
from alexnet_jax.model import ops
from alexnet_jax.training import step
from experiments.doctor_cases import CASES, Lab


@pytest.fixture(scope='session')
def blotches(tmp_path_factory):
    """210 training images in 3 classes, blotches around a colour: enough to tell whether labels belong to them."""
    images = tmp_path_factory.mktemp('blotches')
    for split, count in (('train', 210), ('validation', 3)):
        for i in range(count):
            name, colour = list(TINY_COLOURS.items())[i % 3]
            pixels = np.random.default_rng([i, count]).normal(colour, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            (images / split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((256, 256)).save(images / split / name / f'{i}.jpg')
    data_dir = tmp_path_factory.mktemp('data')
    prepare(folder.make_folder_spec(images, name='blotches'), data_dir=data_dir, workers=1)
    return open_dataset('blotches', data_dir=data_dir)


@pytest.fixture(scope='session')
def lab(blotches):
    """The network in the plain forms of model.ops, which compile in half the time."""
    small = {'variant': 'released', 'width': 0.0625, 'batch_size': 8, 'learning_rate': 0.003, 'mesh': (1, 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, 'find_operations', lambda mesh: ops)
        patch.setattr(network_stats, 'TEST_IMAGES', 64)
        yield Lab(blotches, small, steps=3)


@pytest.fixture(scope='session')
def diagnose(lab):
    """Returns a function of a case's name that diagnoses it, once."""
    return functools.cache(lambda name: CASES[name][0](lab))
