"""The augmentation's chances, pixels and colours, against plain NumPy and covariances built by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data.augment import Draw, centre_crop, crop, draw, lighting_basis, normalise

# A covariance with known axes: 3-4-5 directions and standard deviations of 100, 20 and 5.
AXES = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])  # a row each
DEVIATIONS = np.array([100.0, 20.0, 5.0])
COVARIANCE = sum(s**2 * np.outer(p, p) for s, p in zip(DEVIATIONS, AXES, strict=True))


@pytest.fixture(scope='module')
def draws():
    return [draw(seed=3, epoch=1, record=record) for record in range(20_000)]


def chi_square(counts):
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


@pytest.mark.parametrize('side', ['top', 'left'])
def test_every_offset_from_0_to_32_is_equally_likely(draws, side):
    counts = np.bincount([getattr(d, side) for d in draws])
    assert len(counts) == 33  # 0 to 32: 256 - 224 inclusive
    assert chi_square(counts) < 62.5  # 32 degrees of freedom: more than this once in 1000 seeds


def test_flips_are_half_and_hang_on_neither_offset(draws):
    counts = np.zeros((2, 2, 2))
    for d in draws:
        counts[int(d.flip), d.top % 2, d.left % 2] += 1
    shares = np.array([17, 16]) / 33  # of even and odd offsets
    expected = len(draws) / 2 * np.outer(shares, shares)
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # 7 degrees of freedom, once in 1000 seeds


def test_lighting_numbers_are_standard_normal_and_independent(draws):
    normals = np.stack([d.normals for d in draws])
    np.testing.assert_allclose(normals.mean(axis=0), 0, atol=4 / np.sqrt(len(draws)))
    np.testing.assert_allclose(np.cov(normals.T), np.eye(3), atol=6 / np.sqrt(len(draws)))


def test_a_draw_hangs_on_seed_epoch_and_record_alone():
    def values(**place):
        d = draw(**place)
        return (d.top, d.left, d.flip, *d.normals)

    here = {'seed': 5, 'epoch': 7, 'record': 11}
    first = values(**here)
    values(seed=1, epoch=2, record=3)
    assert values(**here) == first
    others = [values(**here | {key: here[key] + 1}) for key in here] + [values(seed=7, epoch=5, record=11)]
    normals = [set(value[3:]) for value in [first, *others]]
    assert len(set.union(*normals)) == 3 * len(normals)  # no number comes twice, in no other place either


def test_neighbours_draw_independently(draws):
    """Of records, and of epochs: no number of the one says anything of any number of the other, nor of its size."""

    def table(draws):
        rows = np.array([[d.top, d.left, d.flip, *d.normals, *np.abs(d.normals)] for d in draws])
        return (rows - rows.mean(axis=0)) / rows.std(axis=0)

    here = table(draws)
    later = table([draw(seed=3, epoch=2, record=record) for record in range(5000)])
    for a, b in [(here[:-1], here[1:]), (here[:5000], later)]:
        np.testing.assert_allclose(a.T @ b / len(a), 0, atol=5 / np.sqrt(len(a)))


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize(('top', 'left'), [(0, 0), (32, 32), (5, 17)])
def test_crop_is_the_drawn_window_mirrored_where_drawn(top, left, flip):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    view = crop(image, Draw(top, left, flip, np.zeros(3)))
    assert view.shape == (224, 224, 3)
    for row, column in [(0, 0), (0, 223), (223, 0), (100, 30)]:
        np.testing.assert_array_equal(view[row, column], image[top + row, left + (223 - column if flip else column)])
    assert view.dtype == np.uint8


def test_lighting_by_standard_deviation_has_a_hundredth_of_the_pixels_own_covariance():
    basis = lighting_basis(COVARIANCE, scale='standard_deviation', strength=0.1)
    noise = np.random.default_rng(0).standard_normal((100_000, 3)) @ basis.T
    expected = sum((0.1 * s) ** 2 * np.outer(p, p) for s, p in zip(DEVIATIONS, AXES, strict=True))
    np.testing.assert_allclose(basis @ basis.T, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.cov(noise.T), expected, atol=0.02 * expected.max())


def test_lighting_by_eigenvalue_is_the_formula_as_worded_on_pixels_of_0_to_1():
    """Along p_i: alpha * lambda_i with lambda_i = (s_i / 255)^2, and 255 times that in 0..255 units."""
    basis = lighting_basis(COVARIANCE, scale='eigenvalue', strength=0.1)
    along = np.linalg.norm(AXES @ basis, axis=1)
    np.testing.assert_allclose(along, [3.921569, 0.1568627, 0.009803922], rtol=1e-6)  # 0.1 * s^2 / 255
    assert np.abs(basis).max() == pytest.approx(0.8 * 3.921569, rel=1e-6)


def test_lighting_of_grey_pixels_is_grey_and_an_unknown_scale_is_refused():
    basis = lighting_basis(np.full((3, 3), 900.0), scale='standard_deviation', strength=0.1)
    assert np.isfinite(basis).all()
    np.testing.assert_allclose(basis @ basis.T, np.full((3, 3), 9.0), atol=1e-4)  # 0.1^2 of it
    with pytest.raises(ValueError, match='sigma'):
        lighting_basis(COVARIANCE, scale='sigma', strength=0.1)


def test_normalise_subtracts_the_mean_adds_the_lighting_and_divides_only_then():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    mean = random.uniform(100, 150, (224, 224, 3)).astype(np.float32)
    lighting = np.array([[1.0, -2.0, 3.0], [40.0, 50.0, -60.0]], np.float32)
    tested = jax.jit(normalise)(images, mean)
    trained = normalise(jnp.asarray(images), mean, lighting=jnp.asarray(lighting), divisor=1.1)
    assert tested.dtype == trained.dtype == np.float32
    np.testing.assert_allclose(tested, images.astype(np.float64) - mean, atol=1e-4)
    np.testing.assert_allclose(trained, (images - mean.astype(np.float64) + lighting[:, None, None]) / 1.1, atol=1e-4)
    untested = normalise(jnp.asarray(images), mean, divisor=1.1)
    np.testing.assert_array_equal(untested, tested)  # nothing was added, so nothing is divided


def test_centre_crop_leaves_16_pixels_on_every_side():
    image = np.zeros((2, 256, 256, 3))
    image[:, 16:240, 16:240] = 1
    middle = centre_crop(image)
    assert middle.shape == (2, 224, 224, 3)
    assert middle.min() == 1
