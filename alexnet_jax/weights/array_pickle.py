"""Unpickles nested dictionaries and lists of NumPy arrays, and runs nothing of the file.

Users of Flax pickle parameters so, and so does numpy.save where it is given a dictionary.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from alexnet_jax.weights.torch_pickle import BYTEARRAY8, Loaders, RefusedError, Unpickler, Unread, unpickle

_MODULES = ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray')  # the second is NumPy 1's
_NUMERIC = ('numpy.core.numeric', 'numpy._core.numeric')
_DTYPES = ('f2', 'f4', 'f8')
MAX_DEPTH = 8  # of dictionaries and lists in one another
MAX_ARRAYS = 10_000


def unpickle_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of a pickled dictionary by their keys, 'AlexNet_0/Conv_0/kernel', or places, 'conv1/0'.

    The dictionary may be the one object of an array, as numpy.save pickles it.

    Raises:
      RefusedError: it is damaged, or holds anything else than dictionaries and lists of arrays.
    """
    found: dict[str, np.ndarray] = {}
    level: dict[str, Any] = {'': unpickle(io.BytesIO(content), {}, _ArrayUnpickler)}
    for _ in range(MAX_DEPTH + 1):
        below: dict[str, Any] = {}
        for name, value in level.items():
            content = value.content if isinstance(value, _Array) else value
            if isinstance(content, np.ndarray):
                found[name[1:]] = content
            elif type(content) is dict and all(type(key) is str for key in content):
                below |= {f'{name}/{key}': part for key, part in content.items()}
            elif type(content) is list:
                below |= {f'{name}/{place}': part for place, part in enumerate(content)}
            else:
                raise RefusedError(f'its pickle holds a {type(value).__name__.lstrip("_")} where an array belongs')
            if len(below) > MAX_ARRAYS:  # one that stands in many places is one in the file
                raise RefusedError(f'its pickle holds more than {MAX_ARRAYS:,} arrays')
        level = below
    if level:
        raise RefusedError(f'its pickle holds dictionaries more than {MAX_DEPTH} deep')
    return found


class _Array:
    """An array, or the object in an array of one; None until the pickle has said what is in it."""

    content: Any = None


class _Dtype:
    """A dtype by its name, little-endian; 'O8' is that of objects."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in (*_DTYPES, 'O8'):
            raise RefusedError(f'its pickle holds numbers of the kind {str(name)[:20]}, and floats are wanted')
        self.name = name if name == 'O8' else f'<{name}'


def _make_array(*arguments: Any) -> _Array:
    """Makes an array as protocol 5 has it: `_frombuffer` of numpy/_core/numeric.py, which may transpose."""
    match arguments:
        case bytes() as content, _Dtype(name=name), tuple(shape), 'C' | 'F' | 'K' as order, *axes if name != 'O8':
            flat, array = np.frombuffer(content, name), _Array()
            kept = flat.reshape(shape, order='F' if order == 'F' else 'C')
            array.content = kept.transpose(axes[0]) if order == 'K' else kept
            return array
    raise RefusedError('its pickle makes an array in a way that NumPy does not')


def _encode(text: Any, *_: Any) -> bytes:
    """Turns a text to the bytes that it stands for: Python 3's way, and in part Python 2's, to pickle them."""
    if type(text) is not str:
        raise RefusedError('its pickle holds bytes as something else than text')
    return text.encode('latin1')


class _ArrayUnpickler(Unpickler):
    """Carries out what NumPy writes of an array: `array_reduce` of numpy/_core/src/multiarray/methods.c."""

    read: Callable[[int], bytes]

    def find_class(self, module: str, name: str) -> Any:
        """Looks nothing up: the five names of such a pickle are understood, and others stand for themselves."""
        known: dict[str, Callable[..., Any] | Unread] = {
            '_reconstruct': lambda *_: _Array(),
            'dtype': _Dtype,
            'ndarray': Unread('numpy.ndarray'),
        }
        if (module, name) == ('_codecs', 'encode'):
            return _encode
        if name == '_frombuffer' and module in _NUMERIC:
            return _make_array
        return known[name] if module in _MODULES and name in known else Unread(f'{module}.{name}'[:60])

    def build(self, target: Any, state: Any) -> None:
        """Fills an array or takes note of a dtype's byte order."""
        match target, state:
            case (_Dtype(), (3, '<', *_)) | (_Dtype(name='O8'), (3, '|', *_)):
                return
            case _Array(), (1, (), _Dtype(name='O8'), bool(), [content]):
                target.content = content
                return
            case _Array(), (1, _, _Dtype(name='O8'), *_):
                raise RefusedError('its pickle holds an array of objects, and floats are wanted')
            case _Array(), (1, tuple(shape), _Dtype(name=dtype), bool(columns), bytes() | str() as content):
                flat = np.frombuffer(content if isinstance(content, bytes) else _encode(content), dtype)
                target.content = flat.reshape(shape, order='F' if columns else 'C')
                return
        raise RefusedError(f'its pickle gives a {type(target).__name__.lstrip("_")} a state that NumPy does not write')

    def load_bytearray8(self) -> None:
        """Reads what protocol 5 has for an array's bytes, as many as there are: pickle takes the memory asked for."""
        self.stack.append(self.read(int.from_bytes(self.read(8), 'little')))

    dispatch = Loaders(Unpickler.dispatch | {BYTEARRAY8: load_bytearray8})
