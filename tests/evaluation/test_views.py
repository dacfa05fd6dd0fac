"""The paper's views (section 4.1), against NumPy's slices."""

import jax
import numpy as np
import pytest

from alexnet_jax.evaluation.views import cut_view, get_views

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
    return jax.jit(cut_view)


def test_get_views_ten_are_corners_centre_and_their_mirror_images(compiled):
    expected = {patch.tobytes() for patch in PATCHES.values()}
    expected |= {np.flip(patch, axis=2).tobytes() for patch in PATCHES.values()}
    found = [np.asarray(compiled(IMAGES, *view)) for view in get_views('ten_view')]
    assert {view.shape for view in found} == {(2, 224, 224, 3)}
    assert {view.dtype for view in found} == {np.dtype(np.uint8)}
    assert len(found) == len(expected) == 10
    assert {view.tobytes() for view in found} == expected
    assert compiled._cache_size() == 1  # one program for every view


def test_get_views_centre_is_the_middle_as_it_is(compiled):
    (view,) = get_views('centre')
    np.testing.assert_array_equal(compiled(IMAGES, *view), PATCHES['centre'])


def test_get_views_of_caffes_crops_of_227():
    """caffe/python/caffe/io.py oversample: four corners and the centre, 30 places along each side."""
    found = {np.asarray(cut_view(IMAGES, *view, size=227)).tobytes() for view in get_views('ten_view', 227)}
    patches = [IMAGES[:, top : top + 227, left : left + 227] for top in (0, 29) for left in (0, 29)]
    patches.append(IMAGES[:, 14 : 14 + 227, 14 : 14 + 227])
    assert found == {x.tobytes() for patch in patches for x in (patch, patch[:, :, ::-1])}


def test_get_views_of_24_out_of_32_and_of_whole_records():
    """The four corners, the centre 4 from each edge; of whole records, two in place of ten."""
    small = IMAGES[:, :32, :32]
    found = [np.asarray(cut_view(small, *view, size=24)) for view in get_views('ten_view', 24, record=32)]
    patches = [small[:, :24, :24], small[:, :24, 8:], small[:, 8:, :24], small[:, 8:, 8:], small[:, 4:28, 4:28]]
    expected = patches + [patch[:, :, ::-1] for patch in patches]
    assert all(map(np.array_equal, found, expected)) and len(found) == 10
    (centre,) = get_views('centre', 24, record=32)
    assert np.array_equal(cut_view(small, *centre, size=24), small[:, 4:28, 4:28])

    whole = [np.asarray(cut_view(small, *view, size=32)) for view in get_views('ten_view', 32, record=32)]
    assert all(map(np.array_equal, whole, [small, small[:, :, ::-1]])) and len(whole) == 2
    assert get_views('centre', 32, record=32) == ((0, 0, False),)
