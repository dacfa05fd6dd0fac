"""Pickled dictionaries of arrays, as the standard library writes them, come back; nothing else is taken, or run."""

import os
import pickle

import numpy as np
import pytest

from alexnet_jax.weights.array_pickle import unpickle_arrays
from alexnet_jax.weights.torch_pickle import RefusedError

RANDOM = np.random.default_rng(0)
TREE = {
    'net': {
        'conv': {
            'kernel': RANDOM.normal(size=(3, 3, 2, 4)).astype('f4'),
            'bias': np.asfortranarray(RANDOM.normal(size=(4, 5))),
        }
    },
    'turned': RANDOM.normal(size=(2, 3, 4)).transpose(2, 0, 1),
    'half': np.arange(6, dtype='f2').reshape(2, 3)[:, 1:],
}


class Hostile:
    def __reduce__(self):
        return os.mkdir, ('ran',)


@pytest.mark.parametrize('protocol', [3, 4, 5])
def test_unpickle_arrays_gives_what_was_pickled(protocol):
    found = unpickle_arrays(pickle.dumps(TREE, protocol))
    expected = {'net/conv/kernel': TREE['net']['conv']['kernel'], 'net/conv/bias': TREE['net']['conv']['bias']}
    expected |= {name: TREE[name] for name in ('turned', 'half')}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (Hostile(), 'a Unread where an array belongs'),
        ({'a': Hostile()}, 'a Unread where an array belongs'),
        ({'a': np.arange(3)}, 'numbers of the kind i8, and floats'),
        ({'a': np.array([1, None])}, 'an array of objects, and floats'),
        ({'a': np.zeros(3, '>f4')}, 'a Dtype a state that NumPy does not write'),
        ({'a': 'text'}, 'a str where an array belongs'),
        ({1: np.zeros(3)}, 'a dict where an array belongs'),
        ({'a': {'b': {'c': {'d': {'e': {'f': {'g': {'h': {'i': {}}}}}}}}}}, 'more than 8 deep'),
    ],
)
def test_unpickle_arrays_refuses_anything_else_and_runs_nothing(value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedError, match=message):
        unpickle_arrays(pickle.dumps(value, 3))
    assert not any(tmp_path.iterdir())


def test_unpickle_arrays_refuses_what_is_cut_short_or_holds_itself():
    content = pickle.dumps(TREE, 3)
    for end in (1, len(content) // 2, len(content) - 1):
        with pytest.raises(RefusedError, match='damaged'):
            unpickle_arrays(content[:end])
    for length in (9, 2**40, 2**63):  # of bytes that are not there, whose memory is not taken
        with pytest.raises(RefusedError):
            unpickle_arrays(b'\x80\x05\x96' + length.to_bytes(8, 'little') + b'abc.')
    circle = {}
    circle['a'] = circle
    with pytest.raises(RefusedError, match='more than 8 deep'):
        unpickle_arrays(pickle.dumps(circle, 3))
