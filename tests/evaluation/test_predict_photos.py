"""Nearest rows against a loop."""

import math

import numpy as np

from alexnet_jax.evaluation.predict_photos import find_nearest

ROWS = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(4, 9)).astype(np.float32)


def loop(query, rows, count):
    distances = [math.dist(map(float, query), map(float, row)) for row in rows]
    best = sorted(range(len(rows)), key=lambda index: (distances[index], index))[:count]
    return [distances[index] for index in best], best


def test_find_nearest_equals_a_loop_whatever_the_batches():
    for size in (3, 7, 50):
        batches = (ROWS[start : start + size] for start in range(0, 50, size))
        distances, places = find_nearest(QUERIES, batches, 6)
        for query, far, where in zip(QUERIES, distances, places, strict=True):
            expected, best = loop(query, ROWS, 6)
            assert where.tolist() == best
            np.testing.assert_allclose(far, expected, rtol=1e-6)


def test_find_nearest_finds_a_row_itself_and_of_fewer_rows_fewer():
    distances, places = find_nearest(ROWS[[4]], iter([ROWS[:3], ROWS[3:5]]))
    assert places.shape == (1, 5) and places[0, 0] == 4
    assert distances[0, 0] < 1e-3 < distances[0, 1]


def test_find_nearest_takes_the_first_of_equal_distances():
    rows = np.array([[1.0], [2.0], [1.0], [1.0]])
    _, places = find_nearest(np.zeros((1, 1)), iter([rows[2:], rows[:2]]), 3)
    assert places.tolist() == [[0, 1, 2]]
