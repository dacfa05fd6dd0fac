import numpy as np
import pytest

from alexnet_jax.data.statistics import RECORD, Statistics


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (count, 1, 1, 3))  # correlated pixels, so that the covariance is far from diagonal
    return np.clip(base + rng.integers(-40, 41, (count, RECORD, RECORD, 3)), 0, 255).astype(np.uint8)


def test_statistics_equal_numpy_in_two_passes():
    batch = images(5)
    statistics = Statistics(3)
    for i, image in enumerate(batch):
        statistics.add(image, i % 3)

    np.testing.assert_allclose(statistics.mean_image(), batch.mean(axis=0), rtol=1e-12)
    expected = np.cov(batch.reshape(-1, 3).T.astype(np.float64), bias=True)
    np.testing.assert_allclose(statistics.rgb_covariance(), expected, rtol=1e-10)
    assert statistics.image_count == 5
    assert statistics.class_counts.tolist() == [2, 2, 1]


def test_statistics_merge_to_the_same_bytes_in_any_order():
    batch = images(6)
    whole, parts = Statistics(2), [Statistics(2) for _ in range(3)]
    for i, image in enumerate(batch):
        whole.add(image, i % 2)
        parts[i % 3].add(image, i % 2)
    merged = Statistics(2)
    for part in reversed(parts):
        merged.merge(part)

    assert merged.mean_image().tobytes() == whole.mean_image().tobytes()
    assert merged.rgb_covariance().tobytes() == whole.rgb_covariance().tobytes()
    assert merged.class_counts.tolist() == [3, 3]


def test_rgb_covariance_keeps_tiny_variance_of_a_million_images():
    # As many images as ImageNet, all 254 or 255: the variance is 1/4 beside squares of 65,000.
    statistics = Statistics(1)
    half = 640_000
    pixels = 2 * half * RECORD * RECORD
    statistics.class_counts[0] = 2 * half
    statistics.image_sum[:] = half * (254 + 255)
    statistics.product_sum[:] = pixels // 2 * (254**2 + 255**2)

    assert statistics.rgb_covariance().tolist() == [[0.25] * 3] * 3


@pytest.mark.parametrize('image', [np.zeros((224, 224, 3), np.uint8), np.zeros((256, 256, 3), np.float32)])
def test_statistics_refuse_other_shapes_and_dtypes(image):
    with pytest.raises(ValueError, match='expected a uint8 image'):
        Statistics(1).add(image, 0)


def test_statistics_do_not_overflow_on_white_images():
    statistics = Statistics(1)
    for _ in range(3):
        statistics.add(np.full((256, 256, 3), 255, np.uint8), 0)
    assert statistics.product_sum.tolist() == [[3 * 256 * 256 * 255**2] * 3] * 3
    assert statistics.mean_image().min() == 255
