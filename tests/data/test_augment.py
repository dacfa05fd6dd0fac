"""The augmentation's chances, pixels and colours, against plain NumPy and covariances built by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from alexnet_jax.data.augment import (
    centre_crop,
    cut_mean,
    lighting_basis,
    mirror,
    normalise,
    sample_augmentation,
    sample_augmentations,
)
from alexnet_jax.data.pipeline import epoch_order

# A covariance with known axes: 3-4-5 directions and standard deviations of 100, 20 and 5.
AXES = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])  # a row each
DEVIATIONS = np.array([100.0, 20.0, 5.0])
COVARIANCE = sum(s**2 * np.outer(p, p) for s, p in zip(DEVIATIONS, AXES, strict=True))


@pytest.fixture(scope='module', params=[25_000, pytest.param(100_000, marks=pytest.mark.repeats)])
def draws(request):
    """(count, 6) of one epoch's records: top, left, flip, three normals."""
    return table(range(request.param), epoch=1)


@pytest.fixture(scope='module')
def later():
    """The next epoch of the first 20000 of those records."""
    return table(range(20_000), epoch=2)


def table(records, *, epoch):
    records = np.array(records)
    return np.hstack(sample_augmentations(seed=3, epochs=np.full(len(records), epoch), records=records))


def chi_square(counts, expected, *, degrees):
    """Asserts what only one seed in a thousand would fail."""
    statistic, bound = ((counts - expected) ** 2 / expected).sum(), stats.chi2.ppf(0.999, degrees)
    assert statistic < bound, f'chi-square {statistic:.0f} of {degrees} degrees of freedom, bound {bound:.0f}'
    print(f'figures: chi-square {statistic:.0f} of {degrees} degrees of freedom, bound {bound:.0f}')


def assert_uniform_and_independent(first, second, *, values):
    """Every pair of values 0 to n - 1 comes equally often: each is uniform and none says anything of the other."""
    counts = np.zeros(values)
    np.add.at(counts, (first.astype(int), second.astype(int)), 1)
    chi_square(counts, len(first) / counts.size, degrees=counts.size - 1)


def test_sample_augmentation_offsets_are_uniform(draws):
    assert draws[:, :2].min() == 0
    assert draws[:, :2].max() == 32  # 0 to 32: 256 - 224 inclusive
    assert_uniform_and_independent(draws[:, 0], draws[:, 1], values=(33, 33))


def test_sample_augmentation_flips_half_independent_of_offset(draws):
    flips, bound = int(draws[:, 2].sum()), stats.binom.ppf([0.0005, 0.9995], len(draws), 0.5)
    assert bound[0] <= flips <= bound[1], f'{flips} flips of {len(draws)}, expected within {bound}'
    print(f'figures: {flips} flips of {len(draws)}, within {bound}')
    for offset in (0, 1):
        assert_uniform_and_independent(draws[:, offset], draws[:, 2], values=(33, 2))


def test_sample_augmentation_normals_are_standard_normal(draws):
    for i in (3, 4, 5):
        result = stats.kstest(draws[:, i], 'norm')
        assert result.pvalue > 0.001, f'Kolmogorov-Smirnov {result.statistic:.5f}, p {result.pvalue:.1e}'


def test_sample_augmentation_is_independent_between_records_and_epochs(draws, later):
    """Records, and epochs: crop and flip of the one say nothing of the other's, its normals' sizes nothing either."""
    count = len(later)
    for a, b in [(draws[::2], draws[1::2]), (draws[:count], later)]:
        for column, values in [(0, (33, 33)), (1, (33, 33)), (2, (2, 2))]:
            assert_uniform_and_independent(a[:, column], b[:, column], values=values)
        correlations = standardised(a).T @ standardised(b) / len(a)
        bound = stats.norm.ppf(1 - 0.0005 / correlations.size) / np.sqrt(len(a))  # of all of them together
        print(f'figures: neighbours correlated by at most {np.abs(correlations).max():.4f}, bound {bound:.4f}')
        assert np.abs(correlations).max() < bound, f'correlated by {np.abs(correlations).max():.4f}, bound {bound:.4f}'


def standardised(draws):
    columns = np.concatenate([draws, np.abs(draws[:, 3:])], axis=1)
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)


def test_random_streams_equal_those_of_earlier_versions():
    """As the first version drew them: a run that it began goes on with the same images."""
    a, b = sample_augmentation(seed=3, epoch=1, record=7), sample_augmentation(seed=0, epoch=89, record=1_281_166)
    assert [(d.top, d.left, d.flip) for d in (a, b)] == [(1, 27, False), (25, 23, True)]
    np.testing.assert_allclose(a.normals, [1.053011339101116, -0.6129266635794759, -1.3019950549099812], rtol=1e-12)
    np.testing.assert_allclose(b.normals, [0.7836589837158434, 1.5374223540981562, -1.2660149473006064], rtol=1e-12)
    assert epoch_order(10, seed=0, epoch=0).tolist() == [2, 5, 8, 6, 3, 9, 7, 0, 4, 1]
    assert epoch_order(1_281_167, seed=0, epoch=89)[:3].tolist() == [382340, 314579, 138454]


def test_sample_augmentation_shares_crop_and_flip_only_in_a_group():
    def of(record, **group):
        return sample_augmentation(seed=3, epoch=1, record=record, **group)

    shared = [of(record, crop_group=7) for record in range(500, 532)]
    assert {(d.top, d.left, d.flip) for d in shared} == {(of(7).top, of(7).left, of(7).flip)}
    for record, d in zip(range(500, 532), shared, strict=True):
        assert d.normals.tolist() == of(record).normals.tolist()
    numbers = np.arange(3_000)
    options = {'epochs': np.full(3_000, 1), 'records': np.full(3_000, 99), 'crop_groups': numbers}
    groups, normals = sample_augmentations(seed=3, **options)
    assert [tuple(groups[i]) for i in (0, 7)] == [(d.top, d.left, d.flip) for d in (of(5, crop_group=0), of(7))]
    assert (normals == of(99).normals).all()
    assert_uniform_and_independent(groups[:, 0], groups[:, 2], values=(33, 2))
    assert_uniform_and_independent(groups[:, 1], groups[:, 2], values=(33, 2))


def test_sample_augmentation_depends_on_seed_epoch_and_record_only():
    def values(**place):
        d = sample_augmentation(**place)
        return (d.top, d.left, d.flip, *d.normals)

    here = {'seed': 5, 'epoch': 7, 'record': 11}
    first = values(**here)
    values(seed=1, epoch=2, record=3)
    assert values(**here) == first
    others = [values(**here | {key: here[key] + 1}) for key in here] + [values(seed=7, epoch=5, record=11)]
    normals = [set(value[3:]) for value in [first, *others]]
    assert len(set.union(*normals)) == 3 * len(normals)  # no number comes twice, in no other place either


def test_lighting_basis_gives_the_covariance_of_the_formula(draws):
    """Paper section 4.1, over all draws: sum of (0.1 sigma_i)^2 p_i p_i^T, along every p_i."""
    noise = draws[:, 3:] @ lighting_basis(COVARIANCE, scale='standard_deviation', strength=0.1).astype(float).T
    found = noise.T @ noise / len(noise)
    sizes = (0.1 * DEVIATIONS) ** 2
    expected = sum(size * np.outer(p, p) for size, p in zip(sizes, AXES, strict=True))
    # E |found - expected|^2 is (trace^2 + |expected|^2) / n for normal draws, nearly all of it the largest axis's.
    apart, norm = np.linalg.norm(found - expected), np.linalg.norm(expected)
    bound = stats.norm.ppf(0.9995) * np.sqrt((sizes.sum() ** 2 + norm**2) / len(noise))
    assert apart < bound, f'apart by {apart / norm:.4f} of the norm, bound {bound / norm:.4f}'
    print(f'figures: lighting covariance apart by {apart / norm:.4f} of the norm, bound {bound / norm:.4f}')
    # That norm would hardly see the small axes: each by itself.
    inside = stats.chi2.ppf([0.0005, 0.9995], len(noise)) / len(noise)
    ratios = np.diag(AXES @ found @ AXES.T) / sizes
    assert (inside[0] < ratios).all() and (ratios < inside[1]).all(), f'variances {ratios} of theirs, within {inside}'
    across = (AXES @ found @ AXES.T / np.sqrt(np.outer(sizes, sizes)))[np.triu_indices(3, 1)]
    bound = stats.norm.ppf(0.9995) / np.sqrt(len(noise))
    assert np.abs(across).max() < bound, f'axes correlated by {np.abs(across).max():.4f}, bound {bound:.4f}'


def test_lighting_basis_by_eigenvalue_is_the_formula_on_pixels_of_0_to_1():
    """Along p_i: alpha * lambda_i with lambda_i = (s_i / 255)^2, and 255 times that in 0..255 units."""
    basis = lighting_basis(COVARIANCE, scale='eigenvalue', strength=0.1)
    along = np.linalg.norm(AXES @ basis, axis=1)
    np.testing.assert_allclose(along, [3.921569, 0.1568627, 0.009803922], rtol=1e-6)  # 0.1 * s^2 / 255
    assert np.abs(basis).max() == pytest.approx(0.8 * 3.921569, rel=1e-6)


def test_lighting_basis_of_grey_is_grey_and_refuses_unknown_scale():
    basis = lighting_basis(np.full((3, 3), 900.0), scale='standard_deviation', strength=0.1)
    assert np.isfinite(basis).all()
    np.testing.assert_allclose(basis @ basis.T, np.full((3, 3), 9.0), atol=1e-4)  # 0.1^2 of it
    with pytest.raises(ValueError, match='sigma'):
        lighting_basis(COVARIANCE, scale='sigma', strength=0.1)


def test_normalise_subtracts_mean_adds_lighting_and_divides_only_then():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    mean = random.uniform(100, 150, (224, 224, 3)).astype(np.float32)
    lighting = np.array([[0.0, -2.0, 0.0], [0.0, 0.0, 0.0], [40.0, 50.0, -60.0]], np.float32)
    tested = jax.jit(normalise)(images, mean)
    trained = jax.jit(functools.partial(normalise, divisor=1.1))(images, mean, lighting=lighting)
    assert tested.dtype == trained.dtype == np.float32
    plain = images - mean.astype(np.float64)
    np.testing.assert_allclose(tested, plain, atol=1e-4)
    np.testing.assert_allclose(trained[0], (plain[0] + [0, -2, 0]) / 1.1, atol=1e-4)
    np.testing.assert_array_equal(trained[1], tested[1])  # nothing was added, so nothing is divided
    np.testing.assert_allclose(trained[2], (plain[2] + [40, 50, -60]) / 1.1, atol=1e-4)
    np.testing.assert_allclose(
        normalise(jnp.asarray(images), mean, lighting=lighting), plain + lighting[:, None, None], atol=1e-4
    )
    np.testing.assert_array_equal(normalise(jnp.asarray(images), mean, divisor=1.1), tested)


def test_centre_crop_leaves_16_pixels_on_every_side():
    image = np.zeros((2, 256, 256, 3))
    image[:, 16:240, 16:240] = 1
    middle = centre_crop(image)
    assert middle.shape == (2, 224, 224, 3)
    assert middle.min() == 1


def test_cut_mean_is_what_caffe_subtracts():
    """Pixel by pixel as in BVLC/caffe src/caffe/data_transformer.cpp: first subtracted, then mirrored."""
    random = np.random.default_rng(6)
    records, mean = random.integers(0, 256, (3, 9, 9, 3), dtype=np.uint8), random.uniform(90, 130, (9, 9, 3))
    places, size = [(0, 3, 1), (2, 2, 0), (4, 1, 1)], 5
    crops, expected = np.zeros((3, size, size, 3), np.uint8), np.zeros((3, size, size, 3))
    for image, (top, left, mirrored) in enumerate(places):
        for h in range(size):
            for w in range(size):
                to = size - 1 - w if mirrored else w
                crops[image, h, to] = records[image, top + h, left + w]
                expected[image, h, to] = records[image, top + h, left + w] - mean[top + h, left + w]
    with jax.enable_x64(True):
        found = normalise(jnp.asarray(crops), cut_mean(jnp.asarray(mean), jnp.array(places, jnp.int32), size=size))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_cut_mean_gives_every_crop_a_mean_of_its_size_and_wants_the_places_of_others():
    mean = jnp.zeros((5, 5, 3))
    assert cut_mean(mean, None, size=5) is mean
    with pytest.raises(ValueError, match='a mean image of 9 needs the places of its crops of 5'):
        cut_mean(jnp.zeros((9, 9, 3)), None, size=5)


def test_mirror_exchanges_left_and_right_of_those_that_are_to_be():
    images = np.random.default_rng(0).integers(256, size=(4, 3, 5, 3), dtype=np.uint8)
    places = np.array([[1, 2, 0], [0, 0, 1], [4, 0, 1], [0, 1, 0]], np.int32)
    found = np.asarray(jax.jit(mirror)(images, places))
    assert found.dtype == np.uint8
    for image, before, (_, _, mirrored) in zip(found, images, places, strict=True):
        expected = [[before[row, 4 - column if mirrored else column] for column in range(5)] for row in range(3)]
        np.testing.assert_array_equal(image, expected)
    assert mirror(images, None) is images
