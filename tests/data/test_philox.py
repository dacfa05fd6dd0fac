"""Numbers drawn for many records at once are those of NumPy's own generators, one after another."""

import numpy as np
import pytest

from alexnet_jax.data.augment import sample_augmentations
from alexnet_jax.data.philox import Words, draw_words, get_layers

# Of ImageNet's size, its ends among them; the last record number that an int64 holds.
RECORDS = np.concatenate([np.arange(40), np.arange(1_000_000, 1_281_167, 190), [1_281_166, 2**63 - 1]])


def make_generator(seed, epoch, record):
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, int(record)]))


def make_keys(seed, epoch, count):
    return np.stack([np.full(count, seed, np.uint64), np.full(count, epoch, np.uint64)], axis=1)


@pytest.mark.parametrize(('seed', 'epoch'), [(0, 0), (3, 89), ((7 << 31) + 2**31 - 1, 2**40), (2**64 - 1, 2**63)])
def test_draw_words_are_those_of_numpy(seed, epoch):
    records = RECORDS[::100].astype(np.uint64)
    found = draw_words(make_keys(seed, epoch, len(records)), records)
    for words, record in zip(found.T, records, strict=True):
        bits = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=[0, 0, 0, int(record)])
        assert words.tolist() == bits.random_raw(8).tolist()


@pytest.mark.parametrize('count', [33, 1, 2, 9, 30, 801])  # a crop's places of 256, and of other records
def test_words_are_taken_as_numpy_takes_them(count):
    """Integers first, three or one of them, then normals, as the augmentation does: each sure stream in every bit."""
    words = Words(draw_words(make_keys(5, 11, len(RECORDS)), RECORDS.astype(np.uint64)))
    found = [words.integers(count), words.integers(count), words.integers(2)]
    normals = words.normals(3)
    for i, record in enumerate(RECORDS):
        random = make_generator(5, 11, record)
        expected = [random.integers(count), random.integers(count), random.integers(2)], random.standard_normal(3)
        if words.sure[i]:
            assert [numbers[i] for numbers in found] == expected[0] and (normals[i] == expected[1]).all()
    assert 0.94 < words.sure.mean() < 0.97  # the ziggurat takes 98.8 % of its numbers at once: of three, 96.4 %


def test_words_integers_that_numpy_may_have_thrown_away_are_not_sure():
    """2**32 = 33 * 130,150,524 + 4: NumPy draws again where the lower half of 33 times the bits is below 4."""
    halves = [0, 1, 130_150_525, 130_150_524, 2**32 - 1]  # times 33: 0, 33, 29 beyond 2**32, 4 short of it, large
    words = np.zeros((8, len(halves)), np.uint64)
    words[0] = halves
    drawn = Words(words)
    assert drawn.integers(33).tolist() == [0, 0, 1, 0, 32]
    assert drawn.sure.tolist() == [False, True, False, True, True]


def test_get_layers_are_those_of_the_ziggurat():
    """Marsaglia and Tsang 2000: 256 layers of the same area over the normal curve; none of the top is inside."""
    widths, inside = get_layers()
    edges = widths * 2.0**52
    heights = np.exp(-(edges[1:] ** 2) / 2)
    areas = edges[2:] * (heights[:-1] - heights[1:])
    assert edges[-1] == pytest.approx(3.6541528853610088, abs=1e-12)
    np.testing.assert_allclose(areas, edges[0] * heights[-1], rtol=1e-9)  # the base's: its width times its height
    assert inside[1] == 0
    assert 0.985 < inside.mean() / 2.0**52 < 0.995


def test_sample_augmentations_are_numpy_s_draws_of_every_record():
    """The sure and the others, in two epochs, with groups; the first 3 numbers place the crop, the next are normal."""
    epochs = np.where(np.arange(len(RECORDS)) % 2, 3, 4)
    for groups in (None, np.arange(len(RECORDS)) // 32):
        places, normals = sample_augmentations(seed=9, epochs=epochs, records=RECORDS, crop_groups=groups)
        assert (places.dtype, normals.dtype) == (np.int32, np.float64)
        for i, (epoch, record) in enumerate(zip(epochs, RECORDS, strict=True)):
            own = make_generator(9, epoch, record)
            expected = [own.integers(33), own.integers(33), own.integers(2)]
            assert (normals[i] == own.standard_normal(3)).all()
            if groups is not None:
                shared = make_generator(9, epoch, groups[i])
                expected = [shared.integers(33), shared.integers(33), shared.integers(2)]
            assert places[i].tolist() == expected
