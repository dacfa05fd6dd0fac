"""Nearest rows against loops over exact numbers."""

import math

import numpy as np
import pytest

from alexnet_jax.evaluation.predict_photos import find_nearest


def loop(query, rows, count):
    """By Python's own numbers: exact squares of whole numbers, ties by row."""
    squares = [sum((int(a) - int(b)) ** 2 for a, b in zip(query, row, strict=True)) for row in rows]
    best = sorted(range(len(rows)), key=lambda index: (squares[index], index))[:count]
    return [math.sqrt(squares[index]) for index in best], best


def batched(rows, size):
    return (rows[start : start + size] for start in range(0, len(rows), size))


def test_find_nearest_takes_the_first_of_equal_distances():
    rows = np.array([[1.0], [1.0], [0.0], [0.0]], np.float32)
    for size in (1, 2, 3, 4):
        distances, places = find_nearest(np.zeros((1, 1)), batched(rows, size), 3)
        assert places.tolist() == [[2, 3, 0]]
        assert distances.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize('seed', range(4))
def test_find_nearest_equals_a_loop_whatever_the_batches(seed):
    """50 small cases of whole numbers, so few that most distances occur twice."""
    for case in range(50):
        random = np.random.default_rng([seed, case])
        count, width, queries = random.integers(1, 40), random.integers(1, 5), random.integers(1, 4)
        rows = random.integers(-2, 3, (count, width)).astype(np.float32)
        asked = random.integers(-2, 3, (queries, width)).astype(np.float32)
        wanted = int(random.integers(1, 9))
        expected = [loop(query, rows, wanted) for query in asked]
        distances, places = find_nearest(asked, batched(rows, int(random.integers(1, count + 1))), wanted)
        assert places.tolist() == [best for _, best in expected]
        np.testing.assert_allclose(distances, [far for far, _ in expected], rtol=1e-15)


def test_find_nearest_is_0_to_a_row_itself_and_the_same_for_every_batch_size():
    """Features as a network gives: far from 0, near one another; of fewer rows than wanted, all."""
    rows = np.random.default_rng(0).normal(100, 0.01, (50, 300)).astype(np.float32)
    whole = find_nearest(rows, [rows], 60)
    assert (whole[0][:, 0] == 0).all()
    np.testing.assert_array_equal(whole[1][:, 0], range(50))
    assert whole[0].shape == (50, 50)
    expected = [math.dist(rows[0].tolist(), rows[place].tolist()) for place in whole[1][0]]
    np.testing.assert_allclose(whole[0][0], expected, rtol=1e-13)
    for size in (1, 3, 7, 49):
        for found, same in zip(find_nearest(rows, batched(rows, size), 60), whole, strict=True):
            np.testing.assert_array_equal(found, same)
