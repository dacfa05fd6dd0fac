"""Tests the names of a collection's files, and what it does where they cannot be written."""

import numpy as np
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.report.drawing import FigureCollection, Pixels


@pytest.fixture
def collection():
    figures = FigureCollection()
    for name in ('loss', 'a/b c', 'loss', '../..'):
        figures.add(name, Pixels(np.zeros((2, 3, 3), np.uint8), 'black'))
    return figures


def test_write_names_files_safely_and_uniquely(collection, tmp_path):
    assert collection.write(tmp_path) == 4
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['a_b_c.png', 'loss.png', 'loss_2.png', 'picture.png']


def test_write_refuses_folder_that_is_a_file(collection, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match=r'cannot write .*/file/.*: Not a directory'):
        collection.write(tmp_path / 'file')
