"""Writes any network as an ONNX graph that takes crops as they come: RGB pixels of 0..255.

Source of the operators: onnx/onnx docs/Operators.md at opset 17. Its LRN divides alpha by the size and knows no towers;
what follows from that is in `_Graph.channel_norm`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np

from alexnet_jax import InputError
from alexnet_jax.interchange import card as cards
from alexnet_jax.interchange import onnx_format as onnx
from alexnet_jax.interchange.files import replacing
from alexnet_jax.interchange.tree import channels_first
from alexnet_jax.model.network import Network
from alexnet_jax.model.variants import (
    AveragePool,
    ChannelNorm,
    Conv,
    Dense,
    MaxPool,
    Operation,
    Relu,
    SpatialNorm,
    Tanh,
    Variant,
)

INPUT, LOGITS, PROBABILITIES = 'images', 'logits', 'probabilities'
BATCH = 'batch'  # the name of the size that is left open
MEAN = 'mean_image'


def save(network: Network, path: pathlib.Path) -> None:
    """Writes FILE.onnx: 'images' float32 (batch, 3, size, size) in, 'logits' and 'probabilities' (batch, classes) out.

    The mean, the division by pixel_std and what dropout leaves to testing are in the graph; the card (card.py) is its
    metadata_props. The weights are named as here, with their axes in ONNX's order.

    Raises:
      InputError: the file cannot be written, or ONNX has no operator for a layer.
    """
    with replacing(path) as file:
        for piece in encoded(network):
            file.write(piece)


def encoded(network: Network) -> Iterator[bytes | memoryview]:
    """The ModelProto of `save`, in pieces."""
    variant = network.variant
    size = variant.input_size
    if local := [conv.name for conv in variant.convs if not conv.shared]:
        raise InputError(f'ONNX has no locally connected layer, such as {local[0]}: use --to=stablehlo')
    graph = _Graph(variant, channels_first(network.name, network.params))
    graph.tensors[MEAN] = np.asarray(network.mean_image, np.float32).transpose(2, 0, 1)[None]
    x = graph.add('Sub', [INPUT, MEAN])
    if set(variant.pixel_std) != {1.0}:
        x = graph.add('Div', [x, graph.constant('pixel_std', np.reshape(variant.pixel_std, (1, 3, 1, 1)))])
    for conv in variant.convs:
        x = graph.convolution(conv, x)
        for operation in conv.then:
            x = graph.operation(operation, x)
    x = graph.add('Flatten', [x], axis=1)
    *hidden, classifier = variant.dense
    for layer in hidden:
        x = graph.operation(variant.activation, graph.connection(layer, x))
        if variant.drops == 'outputs' and variant.dropout_rate and not variant.inverted_dropout:
            x = graph.add('Mul', [x, graph.constant('kept', 1 - variant.dropout_rate)])
    graph.connection(classifier, x, output=LOGITS)
    graph.add('Softmax', [LOGITS], output=PROBABILITIES, axis=1)
    classes = len(network.classes)
    return onnx.model(
        graph.nodes,
        [onnx.tensor(name, array) for name, array in graph.tensors.items()],
        inputs=[onnx.value(INPUT, (BATCH, 3, size, size))],
        outputs=[onnx.value(name, (BATCH, classes)) for name in (LOGITS, PROBABILITIES)],
        metadata=cards.written(network),
        doc=f'{INPUT}: centre crops of {size}x{size}, RGB, 0..255, channels first, nothing subtracted',
    )


class _Graph:
    """A graph while it is written: `nodes` as they will lie in the file, `tensors` by name."""

    def __init__(self, variant: Variant, tensors: dict[str, np.ndarray]) -> None:
        self.variant = variant
        self.nodes: list[bytes] = []
        self.tensors = dict(tensors)

    def add(self, kind: str, inputs: list[str], *, output: str | None = None, **attributes: onnx.Attribute) -> str:
        """Appends an operator of one result; returns its name."""
        output = output or f'{kind.lower()}_{len(self.nodes)}'
        self.nodes.append(onnx.node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, value: float | np.ndarray) -> str:
        """A float32 constant, once; returns its name."""
        self.tensors[name] = np.asarray(value, np.float32)
        return name

    def halves(self, x: str, *, axis: int) -> list[str]:
        """The towers' halves of x along an axis."""
        outputs = [f'{x}_tower{tower}' for tower in range(2)]
        self.nodes.append(onnx.node('Split', [x], outputs, f'{x}_towers', axis=axis))
        return outputs

    def convolution(self, conv: Conv, x: str) -> str:
        """A convolution; its padding may be uneven, as conv1's is."""
        (top, bottom), (left, right) = conv.padding
        return self.add(
            'Conv',
            [x, f'{conv.name}/kernel', f'{conv.name}/bias'],
            output=conv.name,
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            pads=[top, left, bottom, right],
            group=self.variant.towers if conv.reads == 'tower' else 1,
        )

    def connection(self, layer: Dense, x: str, *, output: str | None = None) -> str:
        """A fully connected layer; tower by tower where a tower's units read their own alone."""
        weights = [f'{layer.name}/kernel', f'{layer.name}/bias']
        if layer.reads == 'both' or self.variant.towers == 1:
            return self.add('Gemm', [x, *weights], output=output or layer.name, transB=1)
        # Flattened channels first, a tower's features are the one or the other half.
        parts = zip(self.halves(x, axis=1), *(self.halves(name, axis=0) for name in weights), strict=True)
        return self.add('Concat', [self.add('Gemm', [*part], transB=1) for part in parts], output=layer.name, axis=1)

    def operation(self, operation: Operation, x: str) -> str:
        """What follows a layer."""
        match operation:
            case Relu():
                return self.add('Relu', [x])
            case Tanh():
                return self.add('Tanh', [x])
            case MaxPool(window, stride, partial) | AveragePool(window, stride, partial):
                kind = type(operation).__name__  # as ONNX has them, without padding of either
                how: dict[str, onnx.Attribute] = {'ceil_mode': 1} if partial else {}
                return self.add(kind, [x], kernel_shape=[window] * 2, strides=[stride] * 2, output=None, **how)
            case ChannelNorm():
                return self.channel_norm(operation, x)
            case SpatialNorm():
                return self.spatial_norm(operation, x)

    def channel_norm(self, norm: ChannelNorm, x: str) -> str:
        """LRN of each tower's channels, or of all.

        ONNX: y = x / (bias + alpha / size * sum)^beta, so alpha is size times ours, and of an even size the window
        leans to the other side, which no variant has.
        """
        assert norm.size % 2 == 1, norm

        def of(channels: str) -> str:
            alpha, beta, k = float(norm.alpha * norm.size), float(norm.beta), float(norm.k)
            return self.add('LRN', [channels], size=norm.size, alpha=alpha, beta=beta, bias=k)

        if norm.across_towers or self.variant.towers == 1:
            return of(x)
        return self.add('Concat', [of(half) for half in self.halves(x, axis=1)], axis=1)

    def spatial_norm(self, norm: SpatialNorm, x: str) -> str:
        """x / (k + alpha * sum of x^2 over the window)^beta: of the mean, zeros outside counted, times the places."""
        before, after = norm.size // 2, norm.size - 1 - norm.size // 2
        mean = self.add(
            'AveragePool',
            [self.add('Mul', [x, x])],
            kernel_shape=[norm.size] * 2,
            pads=[before, before, after, after],
            count_include_pad=1,
        )
        scaled = self.add('Mul', [mean, self.constant('spatial/alpha', norm.alpha * norm.size**2)])
        base = self.add('Add', [scaled, self.constant('spatial/k', norm.k)])
        return self.add('Div', [x, self.add('Pow', [base, self.constant('spatial/beta', norm.beta)])])
