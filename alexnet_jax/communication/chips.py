"""Lists what Google publishes about its TPU chips, from which predictions for them are calculated."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of chip, as published.

    Attributes:
      flops: bfloat16 operations a second, a multiplication and an addition being two.
      memory: bytes of HBM.
      memory_bandwidth: bytes a second between the chip and its HBM.
      link_bandwidth: bytes a second over one link to a neighbouring chip, each way.
      dimensions: of the grid of chips: 2 with four links a chip, 3 with six.
      ring: a side of a slice is closed to a ring if it is a multiple of this many chips.
      pod: most chips in one slice.
      setting: libtpu's name of the configuration in which JAX sees one device a chip.
    """

    name: str
    flops: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    dimensions: int
    ring: int
    pod: int
    setting: str


# Operations, HBM and its bandwidth: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e. Links: v5e's 400 GB/s and
# v6e's 800 GB/s "bidirectional, per chip" by four ports, v5p's 1,200 GB/s by six, halved for one way. The page of v4
# has no such figure: 45 GB/s, and which sides are rings, are from jax-ml.github.io/scaling-book/tpus.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip('v4', 275e12, 32 * 2**30, 1200e9, 45e9, 3, ring=4, pod=4096, setting='megacore'),
        Chip('v5e', 197e12, 16e9, 819e9, 50e9, 2, ring=16, pod=256, setting='default'),
        Chip('v5p', 459e12, 95e9, 2765e9, 100e9, 3, ring=4, pod=8960, setting='megacore'),
        Chip('v6e', 918e12, 32e9, 1638e9, 100e9, 2, ring=16, pod=256, setting='default'),
    )
}

# The published slices, and below four chips a part of the smallest: a host has four chips, side by side.
_SLICES = {
    2: ('1x1', '1x2', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16'),
    3: ('1x1x1', '1x2x1', '2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8'),
}


def list_slices(chip: Chip) -> dict[int, str]:
    """Lists a chip's slices, {number of chips: name of the topology, 'v5e:4x4'}, from 1 to 256."""
    return {math.prod(map(int, shape.split('x'))): f'{chip.name}:{shape}' for shape in _SLICES[chip.dimensions]}
