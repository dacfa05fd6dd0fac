"""The paper's views (section 4.1), against NumPy's slices."""

import jax
import numpy as np
import pytest

from alexnet_jax.evaluation.views import PROTOCOLS, cut

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
PATCHES = {
    'top left': IMAGES[:, :224, :224],
    'top right': IMAGES[:, :224, -224:],
    'bottom left': IMAGES[:, -224:, :224],
    'bottom right': IMAGES[:, -224:, -224:],
    'centre': IMAGES[:, 16:-16, 16:-16],
}


@pytest.fixture(scope='module')
def compiled():
    return jax.jit(cut)


def test_ten_views_are_four_corners_and_the_centre_and_their_mirror_images(compiled):
    expected = {patch.tobytes() for patch in PATCHES.values()}
    expected |= {np.flip(patch, axis=2).tobytes() for patch in PATCHES.values()}
    found = [np.asarray(compiled(IMAGES, *view)) for view in PROTOCOLS['ten_view']]
    assert {view.shape for view in found} == {(2, 224, 224, 3)}
    assert {view.dtype for view in found} == {np.dtype(np.uint8)}
    assert len(found) == len(expected) == 10
    assert {view.tobytes() for view in found} == expected
    assert compiled._cache_size() == 1  # one program for every view


def test_the_centre_is_the_middle_as_it_is(compiled):
    (view,) = PROTOCOLS['centre']
    np.testing.assert_array_equal(compiled(IMAGES, *view), PATCHES['centre'])
