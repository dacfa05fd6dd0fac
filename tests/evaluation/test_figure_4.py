"""The figure of predictions, read back as pixels."""

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.figure_4 import OTHER, RIGHT, Predicted, draw_figure_4

GREEN, VIOLET = (10, 200, 30), (130, 20, 220)
LIKELIEST = [('shoe', 0.5), ('hat', 0.25), ('x$_$' * 20, 0.125), ('дом', 0.1), ('鞋', 0.025)]


def plain(colour):
    return np.full((256, 256, 3), colour, np.uint8)


def count(path, colour):
    """Pixels of exactly this colour."""
    if isinstance(colour, str):
        colour = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return int((np.asarray(Image.open(path).convert('RGB')) == colour).all(axis=-1).sum())


def test_draw_figure_4_makes_bars_as_long_as_probabilities_and_the_right_one_pink(tmp_path, recwarn):
    """The bars' 1 is 180 pixels long; names lie on them, so areas are compared with tolerance."""
    path = tmp_path / 'f.png'
    draw_figure_4(path, [Predicted(plain(GREEN), 'hat', LIKELIEST)])
    assert count(path, GREEN) == pytest.approx(180**2, rel=0.02)
    bar = 180 * 110 / 5.2 * 0.9  # of probability 1
    assert count(path, RIGHT) == pytest.approx(0.25 * bar, rel=0.25)
    assert count(path, OTHER) == pytest.approx(0.75 * bar, rel=0.25)
    for true in (None, 'skirt'):
        draw_figure_4(path, [Predicted(plain(GREEN), true, LIKELIEST)])
        assert count(path, RIGHT) == 0
    assert not [w for w in recwarn if 'Glyph' in str(w.message)]


def test_draw_figure_4_of_five_images_makes_two_rows_with_neighbours(tmp_path):
    path = tmp_path / 'f.png'
    shown = [Predicted(plain(GREEN), None, LIKELIEST)] * 5
    draw_figure_4(path, shown)
    alone = count(path, GREEN)
    assert alone == pytest.approx(5 * 180**2, rel=0.02)
    draw_figure_4(path, [Predicted(plain(GREEN), None, LIKELIEST, [(plain(VIOLET), 'shoe')] * 6)] * 5)
    small = (count(path, GREEN) - alone) / 5  # the test image again, in the first column
    assert small > 80**2
    assert count(path, VIOLET) == pytest.approx(30 * small, rel=0.02)


def test_draw_figure_4_refuses_a_path_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r'cannot write .*f\.png: No such file or directory'):
        draw_figure_4(tmp_path / 'nowhere' / 'f.png', [Predicted(plain(GREEN), None, LIKELIEST)])
