"""The first layer's filters: how colourful each is, and which tower has it. Plain NumPy, read off a kernel.

The paper, section 6.1, of its Figure 3: the kernels on GPU 1 are "largely color-agnostic", those on GPU 2 "largely
color-specific. This kind of specialization occurs during every run and is independent of any particular random weight
initialization (modulo a renumbering of the GPUs)".
"""

import numpy as np

from alexnet_jax.model.spec import TOWERS

COLOURLESS_NOISE = 2 / 3  # the expected share of a kernel of independent weights: two of three directions are chromatic


def colour_shares(kernel: np.ndarray) -> np.ndarray:
    """(kh, kw, 3, n), input channels RGB -> float64 (n,), 0..1: the share of each filter's energy that is chromatic.

    A filter's energy is the sum of its squared weights. Seen as a vector (r, g, b) at each place, a weight has a part
    along grey, (1, 1, 1), and a part at right angles to it, which answers to colour alone. So 0 is a filter that sees
    only brightness, 1 one that sees only colour; a filter of zeros counts as 0.
    """
    weights = kernel.astype(np.float64)
    energy = (weights**2).sum(axis=(0, 1, 2))
    grey = (weights.sum(axis=2) ** 2).sum(axis=(0, 1)) / 3
    return np.divide(energy - grey, energy, out=np.zeros_like(energy), where=energy > 0).clip(0, 1)


def split_towers(values: np.ndarray) -> np.ndarray:
    """(..., n) of all of a layer's output channels -> (TOWERS, ..., n / TOWERS): the first half is tower 0's."""
    return np.stack(np.split(values, TOWERS, axis=-1))


def tower_colours(kernel: np.ndarray) -> dict[str, float]:
    """The mean of `colour_shares` over each tower's filters, as a log has it: {'colour_tower0': ..., ...}."""
    means = split_towers(colour_shares(kernel)).mean(axis=1)
    return {f'colour_tower{tower}': float(mean) for tower, mean in enumerate(means)}
