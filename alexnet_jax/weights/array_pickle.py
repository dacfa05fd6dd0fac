"""Unpickles nested dictionaries of NumPy arrays, as users of Flax pickle parameters, and runs nothing of the file."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from alexnet_jax.weights.torch_pickle import RefusedError, Unpickler, Unread, unpickle

_MODULES = ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray')  # the second is NumPy 1's
_DTYPES = ('f2', 'f4', 'f8')
MAX_DEPTH = 8  # of dictionaries in one another


def unpickle_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of a pickled dictionary, views of `content`, by their keys: 'AlexNet_0/Conv_0/kernel'.

    Raises:
      RefusedError: it is damaged, or holds anything else than dictionaries of arrays.
    """
    found: dict[str, np.ndarray] = {}
    level: dict[str, Any] = {'': unpickle(io.BytesIO(content), {}, _ArrayUnpickler)}
    for _ in range(MAX_DEPTH + 1):
        below: dict[str, Any] = {}
        for name, value in level.items():
            if isinstance(value, _Array) and value.array is not None:
                found[name[1:]] = value.array
            elif type(value) is dict and all(type(key) is str for key in value):
                below |= {f'{name}/{key}': part for key, part in value.items()}
            else:
                raise RefusedError(f'its pickle holds a {type(value).__name__.lstrip("_")} where an array belongs')
        level = below
    if level:
        raise RefusedError(f'its pickle holds dictionaries more than {MAX_DEPTH} deep')
    return found


class _Array:
    """An array; None until the pickle has said what is in it."""

    array: np.ndarray | None = None


class _Dtype:
    """A dtype by its name, little-endian."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in _DTYPES:
            raise RefusedError(f'its pickle holds numbers of the kind {str(name)[:20]}, and floats are wanted')
        self.name = f'<{name}'


class _ArrayUnpickler(Unpickler):
    """Carries out what NumPy writes of an array: `array_reduce` of numpy/_core/src/multiarray/methods.c."""

    def find_class(self, module: str, name: str) -> Any:
        """Looks nothing up: the three names of such a pickle are understood, and others stand for themselves."""
        known: dict[str, Callable[..., Any] | Unread] = {
            '_reconstruct': lambda *_: _Array(),
            'dtype': _Dtype,
            'ndarray': Unread('numpy.ndarray'),
        }
        return known[name] if module in _MODULES and name in known else Unread(f'{module}.{name}'[:60])

    def build(self, target: Any, state: Any) -> None:
        """Fills an array or takes note of a dtype's byte order."""
        match target, state:
            case _Dtype(), (3, '<', *_):
                return
            case _Array(), (1, tuple(shape), _Dtype(name=dtype), bool(columns), bytes(content)):
                flat = np.frombuffer(content, dtype)
                target.array = flat.reshape(shape, order='F' if columns else 'C')
                return
        raise RefusedError(f'its pickle gives a {type(target).__name__.lstrip("_")} a state that NumPy does not write')
