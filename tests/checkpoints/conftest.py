"""One run folder with a checkpoint for all tests, and copies of it to be spoilt."""

import shutil

import pytest
from checkpoints.states import make_state

from alexnet_jax.checkpoints.checkpointer import Checkpointer


@pytest.fixture(scope='session')
def good(tmp_path_factory):
    """A run folder with a checkpoint of a 1x2 mesh at step 7, and its values."""
    folder = tmp_path_factory.mktemp('good')
    state, values = make_state((1, 2), 7)
    with Checkpointer(folder, keep=10) as checkpointer:
        checkpointer.save(state)
    return folder, values


@pytest.fixture
def copied(good, tmp_path):
    return shutil.copytree(good[0], tmp_path / 'run')
