"""Corruptions beside the package imagecorruptions-imaug: some of its definitions are the published ones; its frost."""

import pathlib

import numpy as np
import pytest
from extras.conftest import extra
from PIL import Image

from alexnet_jax.data import corruption_constants
from alexnet_jax.data.corruption_constants import SEVERITIES
from alexnet_jax.data.corruptions import corrupt

library = extra('imagecorruptions')


@pytest.fixture(scope='module')
def image():
    small = np.random.default_rng(1).normal(120, 70, (20, 20, 3)).clip(0, 255).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC))


class OneAngle:
    """Draws the same angle as NumPy's global stream is made to."""

    def uniform(self, low, high):
        return 0.3 * low + 0.7 * high


@pytest.mark.parametrize(
    ('name', 'severities'),
    [
        *((name, SEVERITIES) for name in ('defocus_blur', 'motion_blur', 'brightness', 'contrast')),
        *((name, SEVERITIES) for name in ('pixelate', 'jpeg_compression')),
        ('zoom_blur', (1, 5)),  # slow there
    ],
)
def test_what_draws_no_noise_is_the_library_s(image, monkeypatch, name, severities):
    monkeypatch.setattr(np.random, 'uniform', OneAngle().uniform)
    for severity in severities:
        found = corrupt(image, name, severity, OneAngle()).astype(int)
        theirs = library.corrupt(image, corruption_name=name, severity=severity).astype(int)
        assert np.abs(found - theirs).max() <= 1
        if name != 'motion_blur':  # which is rounded here, as by ImageMagick, and cut there
            assert (found != theirs).mean() < 0.05


@pytest.mark.parametrize('name', ['gaussian_noise', 'shot_noise', 'impulse_noise', 'snow'])
def test_noise_is_as_strong_as_the_library_s(image, name):
    """Means and deviations of what is added; the library's streams are others."""
    np.random.seed(0)
    for severity in (1, 5):
        found = corrupt(image, name, severity, np.random.default_rng(0)) - image.astype(float)
        theirs = library.corrupt(image, corruption_name=name, severity=severity) - image.astype(float)
        assert found.mean() == pytest.approx(theirs.mean(), abs=max(1.5, 0.08 * theirs.std()))
        assert found.std() == pytest.approx(theirs.std(), rel=0.1)


def test_fog_is_the_library_s_of_the_same_draws(image, monkeypatch):
    for severity in SEVERITIES:
        monkeypatch.setattr(np.random, 'uniform', np.random.default_rng(severity).uniform)
        found = corrupt(image, 'fog', severity, np.random.default_rng(severity)).astype(int)
        assert np.abs(found - library.corrupt(image, corruption_name='fog', severity=severity)).max() <= 1


def test_frost_is_read_as_opencv_reads_it(image):
    """Transparency is dropped; JPEGs may be decoded by another version of the same library."""
    import cv2

    corruption_constants.load_frost.cache_clear()
    pictures, folder = corruption_constants.load_frost(), pathlib.Path(library.__file__).parent / 'frost'
    for picture, name in zip(pictures, sorted(path.name for path in folder.iterdir()), strict=False):
        theirs = cv2.imread(str(folder / name))[..., ::-1].astype(int)
        assert np.abs(picture - theirs).max() <= (1 if name.endswith('jpg') else 0), name
    assert len(pictures) == 5
    black = np.zeros_like(image)
    assert len({corrupt(black, 'frost', 3, np.random.default_rng(record)).tobytes() for record in range(4)}) == 4


def test_elastic_transform_is_not_the_library_s(image):
    """Severities 1 and 2 of the published one move the whole image."""
    found = corrupt(image, 'elastic_transform', 1, np.random.default_rng(0)).astype(int)
    theirs = library.corrupt(image, corruption_name='elastic_transform', severity=1).astype(int)
    assert np.abs(found - theirs).mean() > 5
