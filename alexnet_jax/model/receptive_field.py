"""Computes which pixels a unit looks at, from the geometry of the layers before it."""

import numpy as np

from alexnet_jax.model.alexnet import get_stage_shapes, list_stages
from alexnet_jax.model.spec import AveragePool, MaxPool, SpatialNorm, Variant

Ranges = tuple[np.ndarray, np.ndarray]


def get_receptive_fields(variant: Variant) -> dict[str, Ranges]:
    """Finds the rows, and the columns, of the crop that each unit of a convolution's stages reads.

    Returns:
      {stage: (rows, columns)}, each int (places, 2): first pixel and end (exclusive) of the units at these places along
      the axis. Padding is not read, nor are pixels that a window before leaves over at the edge. Stages of dense layers
      are not there: they read all.
    """
    shapes = get_stage_shapes(variant, num_classes=1)
    pixels = np.arange(variant.input_size)
    ranges: list[np.ndarray] = [np.stack([pixels, pixels + 1], axis=1)] * 2
    fields, stages = {}, iter(list_stages(variant))

    def slide(window: int, stride: int = 1, before: tuple[int, int] = (0, 0)) -> None:
        """Goes on to `stage`, whose units read windows of the last one's; the first begins `before` its first unit."""
        for axis, (read, pad) in enumerate(zip(ranges, before, strict=True)):
            starts = np.arange(shapes[stage][axis]) * stride - pad
            first, last = (places.clip(0, len(read) - 1) for places in (starts, starts + window - 1))
            ranges[axis] = np.stack([read[first, 0], read[last, 1]], axis=1)

    for conv in variant.convs:
        stage = next(stages)
        (top, _), (left, _) = conv.padding
        slide(conv.kernel, conv.stride, (top, left))
        fields[stage] = (ranges[0], ranges[1])
        for operation in conv.then:
            stage = next(stages)
            match operation:
                case MaxPool() | AveragePool():
                    slide(operation.window, operation.stride)
                case SpatialNorm():
                    half = operation.size // 2
                    slide(operation.size, before=(half, half))
            fields[stage] = (ranges[0], ranges[1])
    return fields
