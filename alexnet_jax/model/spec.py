"""What a variant of AlexNet is, as data; model.zoo has those that there are."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

TOWERS = 2  # paper section 3.2: "we spread the net across two GPUs"
RECORD_SIZE = 256  # paper section 2: 256x256 images


@dataclasses.dataclass(frozen=True)
class Relu:
    """max(x, 0); paper section 3.1."""


@dataclasses.dataclass(frozen=True)
class Tanh:
    """tanh(x): "the standard way to model a neuron's output" before ReLU; paper section 3.1."""


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-x)): the other one of paper section 3.1, "f(x) = tanh(x) or f(x) = (1 + e^-x)^-1"."""


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Max-pooling of `window` x `window` every `stride`, no padding; overlapping when stride < window (paper 3.4).

    With `partial` a last window that reaches past the edge counts too, cut off there (CHM layer.py: `ceil`).
    """

    window: int = 3
    stride: int = 2
    partial: bool = False


@dataclasses.dataclass(frozen=True)
class AveragePool:
    """The mean of the pixels that lie within such a window, in place of their maximum.

    Where a window is cut off, their sum is divided by the number of them, or by that of all places of a window, as if
    zeros lay outside (`divides_by`): cuda-convnet did the latter until commit dd8fd31 of 2012-07-17.
    """

    window: int = 3
    stride: int = 2
    partial: bool = False
    divides_by: Literal['pixels', 'window'] = 'pixels'


@dataclasses.dataclass(frozen=True)
class ChannelNorm:
    """Local response normalisation across the channels of one tower (paper section 3.3).

    y_i = x_i / (k + alpha * sum_j x_j^2)^beta over the `size` channels j around i; `alpha` multiplies the sum. With
    `across_towers` the last channels of tower 0 and the first of tower 1 are neighbours too, as in Caffe, which knows
    groups of kernels but no towers.
    """

    size: int
    k: float
    alpha: float
    beta: float
    across_towers: bool = False


@dataclasses.dataclass(frozen=True)
class SpatialNorm:
    """The same formula over a `size` x `size` window of one map (CHM layers/layers-145.cfg `type=rnorm`)."""

    size: int
    k: float
    alpha: float
    beta: float


Activation = Relu | Tanh | Sigmoid
Operation = Activation | MaxPool | AveragePool | ChannelNorm | SpatialNorm


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution over both towers and what follows it.

    Attributes:
      features: output channels of both towers together.
      reads: 'image', 'tower' (the maps of its own tower) or 'both' (an exchange comes before it).
      padding: ((top, bottom), (left, right)), zeros.
      init_std: standard deviation of the zero-mean Gaussian that fills the kernel; None: it is uniform within
        +-1/sqrt(fan-in).
      init_bias: what fills the bias; None: it is uniform as such a kernel is, PyTorch's default.
      shared: whether the kernel is the same at every place; False makes it a locally connected layer (CHM `type=local`)
        with a kernel and a bias of its own at each.
      decay: the kernel's weight decay, in multiples of the run's.
    """

    name: str
    features: int
    kernel: int
    reads: Literal['image', 'tower', 'both']
    padding: tuple[tuple[int, int], tuple[int, int]]
    then: tuple[Operation, ...]
    init_std: float | None
    init_bias: float | None
    stride: int = 1
    shared: bool = True
    decay: float = 1.0


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer; the hidden ones are followed by the variant's activation and dropout.

    `features` counts both towers; 0 stands for the number of classes: the last layer, which is called fc8 in every
    network. `init_std`, `init_bias`, `reads` and `decay` are as in `Conv`.
    """

    name: str
    features: int
    init_std: float | None
    init_bias: float | None
    reads: Literal['tower', 'both'] = 'both'
    decay: float = 1.0


@dataclasses.dataclass(frozen=True)
class Lighting:
    """RGB noise along the principal components p_i of the training pixels (paper section 4.1).

    Each image gets sum_i p_i * N(0, strength) * s_i, in 0..255 units, added to all its pixels.

    Attributes:
      scale: 'standard_deviation' takes s_i = sqrt(eigenvalue) of the covariance of 0..255 pixels; 'eigenvalue'
        takes the eigenvalue of the covariance of 0..1 pixels, times 255: the paper's formula as it is worded,
        under the only pixel range in which it is not absurd (its eigenvalues are variances).
      divisor: the whole image is divided by this wherever noise was added.
      until: the fraction of the run's steps after which no noise is added any more. A fraction, so that a run of any
        length ends as the original did: "the last 25 epochs" of a run of 26 would be nearly all of it.
    """

    scale: Literal['standard_deviation', 'eigenvalue']
    strength: float = 0.1
    divisor: float = 1.0
    until: float = 1.0


@dataclasses.dataclass(frozen=True)
class LRMultiplier:
    """From `after`, a fraction of the run's steps, on, the learning rate of `layer` is multiplied by `factor`.

    A later one takes the place of an earlier one of the same layer; with a factor of 0 the layer stays as it is.
    """

    layer: str
    after: float
    factor: float


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network and the parts of its training that belong to it rather than to a run.

    Attributes:
      sources: (point, where that is written) of single points, as the table of docs/fidelity.md names them.
      input_size, record_size: side of the crops that it reads, and of the records that they are cut out of.
      pixel_std: what each RGB channel is divided by once the mean is subtracted, 0..255 units.
      preprocessing: what its images were made squares by (data/preprocessing.py), where others trained it.
      mean_at: which part of the mean image is subtracted from a crop: its 'centre' from every crop, or the one at the
        'crop' itself, mirrored with it.
      dropout_rate: probability that a hidden unit of fc6 and fc7 is dropped (paper section 4.2).
      drops: what dropout is applied to: the outputs of fc6 and fc7, or their inputs.
      inverted_dropout: True scales the kept units up in training and leaves testing alone; False keeps them as
        they are in training and multiplies all of them by 1 - dropout_rate in testing.
      bias_rate: learning rate of biases, in multiples of the weights'.
      bias_drops: whether it falls with the weights'; False leaves it what it was in the first step.
      lr_multipliers: layers that learn more slowly late in a run, in order of time.
      images_per_crop: how many neighbours in an epoch's order share one crop offset and one flip.
      towers: 2, or 1 for a network in which every layer reads all of the one before.
      activation: of the hidden fully connected layers; that of a convolution is among its operations.
      crops: how many crop offsets training draws from: the centre and crops - 1 others; None: all, 33 x 33 of 224.
      flips: whether training mirrors every other image.
      without: the parts that were taken away to make it, names of model.ablations.
    """

    name: str
    source: str
    convs: tuple[Conv, ...]
    dense: tuple[Dense, ...]
    lighting: Lighting
    bias_rate: float
    bias_drops: bool = True
    lr_multipliers: tuple[LRMultiplier, ...] = ()
    input_size: int = 224  # paper section 4.1: "random 224x224 patches"
    record_size: int = RECORD_SIZE
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    preprocessing: Literal['paper', 'caffe', 'torchvision'] = 'paper'
    mean_at: Literal['centre', 'crop'] = 'centre'
    dropout_rate: float = 0.5
    drops: Literal['outputs', 'inputs'] = 'outputs'
    inverted_dropout: bool = False
    images_per_crop: int = 1
    towers: int = TOWERS
    activation: Activation = Relu()
    crops: int | None = None
    flips: bool = True
    without: tuple[str, ...] = dataclasses.field(default=(), compare=False)  # a name of the same data
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def divisible(self) -> bool:
        """Whether its towers can live on two devices that talk only in the exchanges."""
        operations = [operation for conv in self.convs for operation in conv.then]
        return self.towers > 1 and not any(isinstance(o, ChannelNorm) and o.across_towers for o in operations)

    @property
    def mean_size(self) -> int:
        """Side of the mean image that it needs: a crop's, or a record's."""
        return self.input_size if self.mean_at == 'centre' else self.record_size

    @property
    def layers(self) -> tuple[Conv | Dense, ...]:
        """All of them, in order."""
        return (*self.convs, *self.dense)

    @property
    def weight_decay_multipliers(self) -> dict[str, float]:
        """{layer: weight decay of its kernel in multiples of the run's}, where it is not 1."""
        return {layer.name: layer.decay for layer in self.layers if layer.decay != 1}

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The layers that read both towers, in order: what two devices with a tower each exchange before."""
        return tuple(layer.name for layer in self.layers if layer.reads == 'both' and self.towers > 1)

    def scaled(self, width: float) -> Variant:
        """The same network with `width` times the channels and units (even counts, at least 2).

        Initial weights grow by 1/sqrt(width) in every layer whose fan-in shrank, so that each unit's input keeps
        the variance that it has at full width; without this a narrow network starts with a vanishing signal.
        """
        if width == 1:
            return self

        def scale(layer: Any) -> Any:
            features, std = max(TOWERS, TOWERS * round(layer.features * width / TOWERS)), layer.init_std
            if std is not None and layer.reads != 'image':
                std /= math.sqrt(width)
            return dataclasses.replace(layer, features=features if layer.features else 0, init_std=std)

        return dataclasses.replace(self, convs=tuple(map(scale, self.convs)), dense=tuple(map(scale, self.dense)))


@dataclasses.dataclass(frozen=True)
class LayerSize:
    """A row of `get_layer_sizes`: counts over both towers, `macs` multiply-accumulates for one image."""

    name: str
    output: tuple[int, ...]
    weights: int
    biases: int
    macs: int


def get_layer_sizes(variant: Variant, *, num_classes: int) -> list[LayerSize]:
    """Counts each layer's output (height, width, channels) or (units,) after pooling, parameters and arithmetic."""
    rows = []
    size, channels = variant.input_size, 3
    for conv in variant.convs:
        size = (size + sum(conv.padding[0]) - conv.kernel) // conv.stride + 1
        fan_in = conv.kernel**2 * (channels // variant.towers if conv.reads == 'tower' else channels)
        macs, kernels = fan_in * conv.features * size**2, 1 if conv.shared else size**2
        for operation in conv.then:
            if isinstance(operation, MaxPool | AveragePool):
                steps = size - operation.window + (operation.stride - 1 if operation.partial else 0)
                size = steps // operation.stride + 1
        channels = conv.features
        weights, biases = kernels * fan_in * channels, kernels * channels
        rows.append(LayerSize(conv.name, (size, size, channels), weights, biases, macs))
    units = size * size * channels
    for layer in variant.dense:
        features = layer.features or num_classes
        weights = (units // variant.towers if layer.reads == 'tower' else units) * features
        rows.append(LayerSize(layer.name, (features,), weights, features, weights))
        units = features
    return rows
