"""Compares the layers that a foreign file lists with those of a network, in their order and with their constants.

Weights that fit another network than the one in the file would give plausible, wrong numbers: a layer that is not
known in its place is refused by its name, never passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.model.spec import Variant
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.weights.onnx_write import GraphBuilder
from alexnet_jax.weights.proto_messages import MalformedError

# What is compared, in ONNX's terms and with its defaults: onnx/onnx docs/Operators.md.
COMPARED: dict[str, dict[str, tuple[float, ...]]] = {
    'Conv': {'strides': (1, 1), 'pads': (0, 0, 0, 0), 'dilations': (1, 1), 'group': (1.0,)},
    'Relu': {},
    'MaxPool': {'kernel_shape': (0, 0), 'strides': (1, 1), 'pads': (0, 0, 0, 0), 'dilations': (1, 1)},
    'LRN': {'size': (0.0,), 'alpha': (1e-4,), 'beta': (0.75,), 'bias': (1.0,)},
    'Flatten': {},
    'Gemm': {'alpha': (1.0,), 'beta': (1.0,), 'transA': (0.0,)},
}


class Layer(NamedTuple):
    """A layer as a file has it.

    Attributes:
      kind: ONNX's name of the operator, or the file's own of one that no network here has.
      title: its name in the file.
      attributes: those of COMPARED that the file states.
    """

    kind: str
    title: str
    attributes: Mapping[str, tuple[float, ...]]


def infer_variant(kinds: Sequence[str]) -> str | None:
    """Infers which of Caffe's two a list is of by which comes first, LRN or MaxPool; None: one is missing."""
    if 'LRN' not in kinds or 'MaxPool' not in kinds:
        return None
    return 'caffe_alexnet' if kinds.index('LRN') < kinds.index('MaxPool') else 'caffenet'


def check_layers(variant: str, layers: Sequence[Layer]) -> None:
    """Compares `layers`, from the first convolution to the logits, with those of VARIANTS[variant].

    Raises:
      MalformedError: one is missing, too many, in another place, or has another constant; it is named.
    """
    builder = GraphBuilder(VARIANTS[variant], {})
    builder.add_network()
    expected = [node for node in builder.model.graph.node if node.op_type in COMPARED]
    for index, layer in enumerate(layers):
        wanted = expected[index].op_type if index < len(expected) else 'nothing more'
        if layer.kind != wanted:
            raise MalformedError(f'it has {layer.kind} {layer.title[:60]} where {variant} has {wanted}')
        for name, default in COMPARED[layer.kind].items():
            found, ours = layer.attributes.get(name, default), get_attribute(expected[index], name, default)
            # Both are float32. Caffe2's converter pads a pool's end where Caffe rounds sizes up; of crops of the right
            # size there is nothing to round.
            same = len(found) == len(ours) and np.allclose(found, ours, rtol=1e-6, atol=0)
            if not same and (layer.kind, name, tuple(found)) != ('MaxPool', 'pads', (0, 0, 1, 1)):
                shown = [values if len(default) > 1 else values[0] for values in (found, ours)]
                text = f'{layer.kind} {layer.title[:60]} has {name} {shown[0]}, and {variant} {shown[1]}'
                raise MalformedError(text)
    if len(layers) < len(expected):
        raise MalformedError(f'it ends where {variant} has {expected[len(layers)].op_type}')


def check_same_graph(variant: Variant, nodes: Sequence[Any], get_array: Any) -> None:
    """Compares an ONNX graph that says that this project wrote it with what it writes for `variant`.

    Raises:
      MalformedError: an operator or a constant of it was changed; it is named.
    """
    builder = GraphBuilder(variant, {})
    builder.add_network()
    expected = builder.model.graph.node
    for node, ours in zip(nodes, expected, strict=False):
        parts = [
            (n.op_type, [*n.input], [*n.output], sorted(x.SerializeToString() for x in n.attribute))
            for n in (node, ours)
        ]
        if node.domain or parts[0] != parts[1]:
            raise MalformedError(
                f'it was changed: it has {node.op_type} {node.name[:60]} where {ours.op_type} was written'
            )
    if len(nodes) != len(expected):
        raise MalformedError(f'it was changed: it has {len(nodes)} operators, and {len(expected)} were written')
    for name, value in builder.tensors.items():
        if not np.array_equal(get_array(name), value):
            raise MalformedError(f'it was changed: its constant {name} is another')


def find_attribute(node: Any, name: str) -> Any:
    """Returns the AttributeProto of that name of a NodeProto, or None."""
    return {attribute.name: attribute for attribute in node.attribute}.get(name)


def get_attribute(node: Any, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Returns an INTS attribute, or a FLOAT or INT as one float: what `default` is of."""
    attribute = find_attribute(node, name)
    if attribute is None:
        return default
    if len(default) > 1:
        return tuple(attribute.ints)
    return (attribute.f if attribute.HasField('f') else float(attribute.i),)
