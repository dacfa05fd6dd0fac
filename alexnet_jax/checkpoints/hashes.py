"""Fingerprints of arrays: sha256 of a whole tree's leaves, and of the parts that a process holds of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from alexnet_jax.sharding.mesh import REPLICATED, in_towers


def hash_array(value: Any) -> str:
    """sha256, in hex, of an array's dtype, shape and bytes in row order."""
    value = np.ascontiguousarray(value)
    found = hashlib.sha256(f'{value.dtype.str} {value.shape}'.encode())
    found.update(value.data)
    return found.hexdigest()


def hash_leaves(tree: Any) -> dict[str, str]:
    """{path: digest of the whole logical array} of every leaf, which this process must hold."""
    return {_name(path): hash_array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def hash_tree(tree: Any) -> str:
    """One sha256 of a whole tree: equal if and only if every leaf is, bit for bit."""
    lines = [f'{name} {found}' for name, found in sorted(hash_leaves(tree).items())]
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def iter_pieces(tree: Any, *, every_copy: bool) -> Iterator[tuple[str, np.ndarray]]:
    """What this process holds of `tree`, as (name, array), cut so that the same names come out on every mesh.

    A leaf that is one half for each tower is two pieces, 'NAME/tower0' and 'NAME/tower1', the halves of its last axis,
    also where one device has both; any other leaf is one. What the mesh splits otherwise is gathered first, leaf by
    leaf: so all processes have to call this together.

    Args:
      tree: of jax.Array.
      every_copy: whether a piece comes once for each device that holds it, or only from the first of them.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, halved = _name(path), in_towers(path)
        for shard in _whole(leaf, halved=halved).addressable_shards:
            if not every_copy and shard.replica_id:
                continue
            value = np.asarray(shard.data)
            if not halved:
                yield name, value
                continue
            half = leaf.shape[-1] // 2
            start = shard.index[-1].start or 0
            for first in range(start, start + value.shape[-1], half):
                yield f'{name}/tower{first // half}', value[..., first - start : first - start + half]


def _whole(leaf: jax.Array, *, halved: bool) -> jax.Array:
    """The leaf with nothing on a device that is less than a piece."""
    piece = (*leaf.shape[:-1], leaf.shape[-1] // 2) if halved else leaf.shape
    held = leaf.sharding.shard_shape(leaf.shape)
    if held in (piece, leaf.shape) or not isinstance(leaf.sharding, NamedSharding):
        return leaf
    return jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, REPLICATED))(leaf)


def get_shapes(tree: Any) -> dict[str, list[int]]:
    """{path: shape} of every leaf."""
    return {_name(path): list(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def find_differing(found: Iterator[tuple[str, np.ndarray]], expected: Mapping[str, str]) -> list[str]:
    """Names of the pieces that are not what `expected` says."""
    return sorted({name for name, value in found if expected.get(name) != hash_array(value)})


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='/')
