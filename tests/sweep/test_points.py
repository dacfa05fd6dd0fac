"""The functions that a sweep() is written with."""

import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.sweep.points import chain, each, product, seeds, zip_


def test_product_changes_the_last_fastest():
    assert product(each('momentum', [0.0, 0.9]), seeds(2)) == [
        {'momentum': 0.0, 'seed': 0},
        {'momentum': 0.0, 'seed': 1},
        {'momentum': 0.9, 'seed': 0},
        {'momentum': 0.9, 'seed': 1},
    ]


def test_product_of_nothing_is_one_empty_point():
    assert product() == [{}]


def test_zip_combines_points_in_order():
    assert zip_(each('batch_size', [32, 64]), each('learning_rate', [0.1, 0.2])) == [
        {'batch_size': 32, 'learning_rate': 0.1},
        {'batch_size': 64, 'learning_rate': 0.2},
    ]


def test_chain_appends_sweeps():
    assert chain(each('seed', [1]), ({'width': w} for w in (1.0, 2.0))) == [{'seed': 1}, {'width': 1.0}, {'width': 2.0}]


@pytest.mark.parametrize('join', [product, zip_])
def test_product_and_zip_refuse_a_key_set_twice(join):
    with pytest.raises(InputError, match='seed is set twice'):
        join(seeds(2), seeds(2))


def test_zip_refuses_different_lengths():
    with pytest.raises(InputError, match='2 and 3 points'):
        zip_(seeds(2), each('width', [1, 2, 3]))


def test_chain_and_product_copy_points():
    first = {'seed': 1}
    chain([first])[0]['seed'] = 2
    product([first])[0]['seed'] = 3
    assert first == {'seed': 1}
