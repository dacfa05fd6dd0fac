"""Goes through a batch in parts: what each gives of the gradients, and how the whole batch's follow from it.

Nine tenths of AlexNet's weights are in the kernels of fully connected layers, whose gradients are as large as they, in
every part. They are left until the last part: the gradient of a kernel over a batch is x^T dy, and each part keeps its
rows of x and dy (`ops.matmul_deferred`), a hundredth of that.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike

from alexnet_jax.model.spec import Variant
from alexnet_jax.sharding.collectives import copy_like_kernel

Factors = dict[str, tuple[Array, Array]]  # by layer: x (b, i) and dy (b, o)


def split_batch(batch: Any, parts: int) -> Iterator[Any]:
    """Iterates over `parts` batches of as many rows each, a tree of arrays as `batch`, in order."""
    for part in range(parts):
        yield jax.tree.map(lambda x, part=part: jnp.split(x, parts)[part], batch) if parts > 1 else batch


def list_deferred(variant: Variant, learning: Mapping[str, Any]) -> tuple[str, ...]:
    """Lists the layers whose kernels' gradients can wait: those that are one product."""
    whole = (layer.name for layer in variant.dense if layer.reads == 'both' or variant.towers == 1)
    return tuple(layer for layer in whole if layer in learning)


def split_kernels(layers: Mapping[str, Any], deferred: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits {layer: {'kernel', 'bias'}} into the kernels of the layers `deferred` and all else, both such trees."""
    kernels = {layer: {'kernel': layers[layer]['kernel']} for layer in deferred}
    others = {
        layer: {name: leaf for name, leaf in leaves.items() if layer not in deferred or name != 'kernel'}
        for layer, leaves in layers.items()
    }
    return kernels, others


def join_kernels(kernels: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Joins what `split_kernels` splits."""
    return {layer: {**kernels.get(layer, {}), **leaves} for layer, leaves in others.items()}


def make_factors(kernels: Mapping[str, Any], rows: int, mesh: Mesh, *, dtype: DTypeLike | None) -> Factors:
    """Makes what `ops.matmul_deferred` is given for each kernel, of `rows` rows; to be called inside shard_map.

    `dtype` is the model's; products are in it, but for fc8's, which are float32 at least.
    """
    made = {}
    for layer, leaves in kernels.items():
        kernel = leaves['kernel']
        narrow = jnp.dtype(dtype or kernel.dtype)
        wide = jnp.promote_types(narrow, jnp.float32) if layer == 'fc8' else narrow
        pair = jnp.zeros((rows, kernel.shape[0]), narrow), jnp.zeros((rows, kernel.shape[1]), wide)
        made[layer] = jax.tree.map(lambda x, layer=layer: copy_like_kernel(x, layer, mesh), pair)
    return made


def multiply_factors(parts: Sequence[Factors], *, like: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the gradients of the kernels `like`, such a tree, from what each part gave for `make_factors`."""
    whole = jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts)

    def multiply(layer: str, kernel: Array) -> Array:
        x, dy = whole[layer]
        return jnp.matmul(x.T, dy.astype(x.dtype), preferred_element_type=kernel.dtype)

    return {layer: {'kernel': multiply(layer, leaves['kernel'])} for layer, leaves in like.items()}
