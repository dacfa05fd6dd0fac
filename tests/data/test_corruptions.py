"""The corruptions beside their definitions (corruption_oracle.py), and of what they depend on."""

import numpy as np
import pytest
from data import corruption_oracle as oracle
from PIL import Image

from alexnet_jax.data import corruption_constants as constants
from alexnet_jax.data import corruption_filters as filters
from alexnet_jax.data import corruptions
from alexnet_jax.data.corrupted import CorruptedSource
from alexnet_jax.data.corruption_constants import CONSTANTS, CORRUPTIONS, SEVERITIES, SIZES
from alexnet_jax.data.corruptions import compress_jpeg, corrupt, make_stream
from alexnet_jax.data.pipeline import EvaluationBatches, read_whole_image
from alexnet_jax.errors import InputError

PICTURES = tuple(np.random.default_rng(i).integers(0, 256, (280 + i, 300, 3)).astype(np.uint8) for i in range(5))


def image_of(side):
    """Smooth blotches with a flat part, black, white and grey."""
    small = np.random.default_rng(1).normal(120, 70, (10, 10, 3)).clip(0, 255).astype(np.uint8)
    pixels = np.array(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))
    quarter = side // 4
    pixels[:quarter, :quarter], pixels[:quarter, -quarter:], pixels[-quarter:, -quarter:] = 0, 255, 77
    return pixels


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """In place of those of frost, which are an extra's."""
    monkeypatch.setattr(corruptions, 'load_frost', lambda: PICTURES)


def expected(image, name, severity):
    c = CONSTANTS[SIZES[len(image)]][name][severity - 1]
    more = (PICTURES,) if name == 'frost' else ()
    return getattr(oracle, name)(image / 255, c, np.random.default_rng(5), *more) * 255


# Of 256 the loops of the oracle take long: one severity, and of 32 alone where the size hardly matters.
CASES = [(32, name, SEVERITIES) for name in CORRUPTIONS]
CASES += [(256, name, (3,)) for name in CORRUPTIONS if name not in ('fog', 'glass_blur', 'impulse_noise', 'brightness')]


@pytest.mark.parametrize(('side', 'name', 'severities'), CASES)
def test_corruptions_are_their_definitions(side, name, severities):
    image = image_of(side)
    for severity in severities:
        found = corrupt(image, name, severity, np.random.default_rng(5))
        exact = np.clip(expected(image, name, severity), 0, 255)
        assert found.dtype == np.uint8 and found.shape == image.shape
        # Whole numbers below or, but for rounding errors, at the exact ones. Glass is cut to such before it is smoothed
        # again: where rounding decides there, one of its neighbours is another.
        outside = (found > exact + 2e-3) | (found <= exact - 1 - 2e-3)
        assert outside.mean() <= (0.03 if name == 'glass_blur' else 0), (severity, outside.mean())
        assert (np.abs(found - exact) <= 2).all()
        assert not np.array_equal(found, image)


def test_cifar_constants_get_stronger():
    """By what they do to an image, in the mean; what moves pixels or covers them does so by chance too."""
    image = image_of(32).astype(float)
    chance = ('glass_blur', 'motion_blur', 'elastic_transform', 'snow', 'frost', 'pixelate')
    for name in set(CORRUPTIONS) - set(chance):
        changes = [np.abs(corrupt(image_of(32), name, s, np.random.default_rng(0)) - image).mean() for s in SEVERITIES]
        assert changes == sorted(changes), name


class Rightwards:
    """Draws that all point to the next pixel but one of the row, as far as there is one."""

    def integers(self, low, high, shape):
        dx, dy = np.zeros(shape, int)
        dx[:, :-1] = high - 1
        return dx, dy


@pytest.mark.parametrize('severity', SEVERITIES)
@pytest.mark.parametrize('draws', [Rightwards, lambda: np.random.default_rng(3)])
def test_glass_blur_follows_chains(draws, severity):
    """With constants that reach far: of CIFAR-10-C's no pixel reads one that was changed before."""
    c, image = CONSTANTS['ImageNet-C']['glass_blur'][severity - 1], image_of(32)
    found = corruptions._glass_blur(image, c, draws())
    assert (np.abs(found - oracle.glass_blur(image / 255, c, draws()) * 255) < 1.01).all()


def test_filters_leave_flat_images_flat():
    flat = np.full((32, 32, 3), 77, np.uint8)
    for name in ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur', 'contrast', 'elastic_transform', 'pixelate'):
        for severity in SEVERITIES:
            np.testing.assert_array_equal(corrupt(flat, name, severity, np.random.default_rng(0)), flat, err_msg=name)


def test_mirror_is_that_of_numpy():
    for twice, mode in ((True, 'symmetric'), (False, 'reflect')):
        padded = np.pad(np.arange(7), 40, mode)
        np.testing.assert_array_equal(filters.mirror(np.arange(-40, 47), 7, twice=twice), padded)


def test_streams_follow_from_all_four():
    def draw(*of):
        return tuple(make_stream(*of).integers(0, 2**62, 2).tolist())

    cases = [
        (seed, record, name, s) for seed in (0, 1) for record in (0, 1) for name in CORRUPTIONS for s in SEVERITIES
    ]
    assert len({draw(*of) for of in cases}) == len(cases)
    assert draw(3, 12, 'fog', 2) == draw(3, 12, 'fog', 2)


def test_corrupted_records_do_not_depend_on_batches_threads_and_hosts(tiny, tiny_raw):
    exact = []
    encoded, raw = tiny.records('validation'), tiny_raw.records('validation')
    for index in range(len(encoded)):
        clean = read_whole_image(encoded, index, record_size=256)
        exact.append(compress_jpeg(corrupt(clean, 'shot_noise', 2, make_stream(7, index, 'shot_noise', 2)), 85))
    labels = [label for _, label in encoded]
    for source, size, threads in ((encoded, 13, 1), (encoded, 4, 5), (raw, 6, 3)):
        corrupted = CorruptedSource(source, 'shot_noise', 2, seed=7, record_size=256)
        corrupted.threads = threads
        images, found = np.zeros((16, 256, 256, 3), np.uint8), np.zeros(16, int)
        for rows in (range(size // 2), range(size // 2, size)):  # of two hosts
            for index, batch in enumerate(EvaluationBatches(corrupted, size, rows=rows).read()):
                places = index * size + np.array(rows)
                kept = places[batch.valid]
                images[kept], found[kept] = batch.images[batch.valid], batch.labels[batch.valid]
        np.testing.assert_array_equal(images[:13], exact)
        assert found[:13].tolist() == labels


def test_load_frost_names_the_extra_and_knows_its_files(monkeypatch, tmp_path):
    package = tmp_path / 'frozen'
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(constants, '_PACKAGE', 'frozen')
    constants.load_frost.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'alexnet-jax\[corruptions\]', or name other corruptions"):
        constants.load_frost()
    (package / 'frost').mkdir(parents=True)
    (package / '__init__.py').write_text('raise AssertionError')  # is not imported
    (package / 'frost' / 'frost1.png').write_bytes(b'another')
    with pytest.raises(InputError, match=r'frost1.png is not the picture of imagecorruptions-imaug 1.1.5'):
        constants.load_frost()
