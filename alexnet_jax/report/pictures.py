"""Measures and renders the first layer's filters by tower, as in the paper's Figure 3, and an image's feature maps."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import ImageColor

from alexnet_jax.data.augment import centre_crop, normalise
from alexnet_jax.evaluation.attribution import METHODS, SIGNALS
from alexnet_jax.evaluation.explain_picture import paint_map, paint_signal
from alexnet_jax.evaluation.explainer import Explainer, Settings, make_maps
from alexnet_jax.model.alexnet import INTERMEDIATES, AlexNet, list_stages
from alexnet_jax.model.colour import colour_shares, split_towers
from alexnet_jax.model.network import Network
from alexnet_jax.report.drawing import MUTED, TOWER_COLOURS

_PERMUTATIONS = 9999
_GAP = 4  # pixels between tiles
_STEPS = 20  # of integrated gradients
_SIDE = 54  # pixels of a tile: twice 27, four times 13, nine times 6, five times 11


@dataclasses.dataclass(frozen=True)
class Specialisation:
    """How differently the two towers see colour.

    `difference` is the distance of the towers' means, 0..1: 0 for towers that are alike, 1 where one has only grey and
    the other only colour. `p` is how often a random assignment of the same filters to the towers gives that difference
    or more, 0..1.
    """

    shares: np.ndarray  # (2, n / 2), 0..1: by tower, each filter's share of chromatic energy (model.colour)
    means: tuple[float, ...]  # of each tower's shares
    medians: tuple[float, ...]
    difference: float
    p: float


def measure_specialisation(kernel: np.ndarray, *, permutations: int = _PERMUTATIONS) -> Specialisation:
    """Measures the specialisation of a first layer's kernel (kh, kw, 3, n), n even: tower 0's filters first.

    `p` is a two-sided permutation test's, (1 + as extreme) / (1 + permutations), with a fixed seed.
    """
    shares = split_towers(colour_shares(kernel))
    means, medians = (tuple(map(float, measure(shares, axis=1))) for measure in (np.mean, np.median))
    rng, difference, half = np.random.default_rng(0), abs(means[1] - means[0]), shares.shape[1]
    permuted = rng.permuted(np.tile(shares.ravel(), (permutations, 1)), axis=1)
    differences = np.abs(permuted[:, half:].mean(axis=1) - permuted[:, :half].mean(axis=1))
    extreme = int((differences >= difference - 1e-12).sum())  # rounding must not part equal ones
    return Specialisation(shares, means, medians, difference, p=(1 + extreme) / (1 + permutations))


def measure_initial_share(kernel: np.ndarray, initial_kernel: np.ndarray) -> float:
    """Measures the share of the filters' energy that is still of their random start, 0..1.

    It is the mean squared cosine between each filter now and then, of two (kh, kw, 3, n). Filters of independent random
    weights would have 1 / (weights of a filter) in common.
    """
    now, then = (array.astype(np.float64).reshape(-1, array.shape[-1]) for array in (kernel, initial_kernel))
    energies = (now**2).sum(axis=0) * (then**2).sum(axis=0)
    products = (now * then).sum(axis=0) ** 2
    return float(np.divide(products, energies, out=np.zeros_like(energies), where=energies > 0).mean())


def render_filters(kernel: np.ndarray) -> np.ndarray:
    """Renders (kh, kw, 3, n) as uint8 (n, kh, kw, 3): a weight of 0 is middle grey, a filter's largest is full.

    The image is the one that the filter answers to most.
    """
    filters = np.moveaxis(kernel.astype(np.float64), -1, 0)
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(filters, largest, out=np.zeros_like(filters), where=largest > 0)
    return np.rint(127.5 + 127.5 * scaled).astype(np.uint8)


def tile_images(images: np.ndarray, *, max_columns: int) -> np.ndarray:
    """Arranges uint8 (n, h, w, 3) in reading order on one RGBA image, with transparent gaps between them.

    Each is enlarged to about _SIDE pixels, each of its own a square. A row has `max_columns` of them, or fewer, but at
    least half as many, if all rows are full then.
    """
    scale = max(1, round(_SIDE / images.shape[1]))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, _ = images.shape
    divisors = (columns for columns in range(max_columns, max(max_columns // 2, 1) - 1, -1) if n % columns == 0)
    columns = next(divisors, min(n, max_columns))
    rows = -(-n // columns)
    high, wide = height + _GAP, width + _GAP
    tiles = np.zeros((rows * columns, high, wide, 4), np.uint8)
    tiles[:n, :height, :width] = np.insert(images, 3, 255, axis=3)  # opaque
    grid = tiles.reshape(rows, columns, high, wide, 4).swapaxes(1, 2)
    return grid.reshape(rows * high, columns * wide, 4)[:-_GAP, :-_GAP]


def compute_maps(network: Network, image: np.ndarray) -> dict[str, np.ndarray]:
    """Computes {convolution: float32 (h, w, channels)} of a record, uint8 (h, w, 3), seen through its centre crop.

    The maps are those that the next layer reads: behind activation, pooling and normalisation.
    """
    variant = network.variant
    last_stages = {stage.split('/')[0]: stage for stage in list_stages(variant)}

    @jax.jit
    def forward(params: Any, crop: Array, mean: Array) -> dict[str, Array]:
        model, pixels = AlexNet(variant, len(network.classes)), normalise(crop, mean, std=variant.pixel_std)
        stages = model.apply({'params': params}, pixels, mutable=[INTERMEDIATES])[1][INTERMEDIATES]
        return {conv.name: stages[last_stages[conv.name]][0] for conv in variant.convs}

    crop = jnp.asarray(centre_crop(image, variant.input_size))[None]
    return jax.device_get(forward(network.params, crop, centre_crop(network.mean_image, variant.input_size)))


def select_strongest_maps(maps: np.ndarray, *, count: int) -> np.ndarray:
    """Selects from (h, w, channels) the maps whose means are largest, (count, h, w), strongest first."""
    strongest = np.argsort(-maps.mean(axis=(0, 1)), kind='stable')[:count]
    return np.moveaxis(maps[..., strongest], -1, 0)


def render_maps(maps: np.ndarray, *, tower: int | None) -> np.ndarray:
    """Renders (n, h, w) as uint8 (n, h, w, 3): black is 0 and less, then the tower's colour, white each map's largest.

    `tower` None, of a network without towers, is grey.
    """
    largest = maps.max(axis=(1, 2), keepdims=True)
    levels = np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0).clip(0, 1)
    middle = ImageColor.getrgb(MUTED if tower is None else TOWER_COLOURS[tower])
    channels = [np.interp(levels, [0, 0.5, 1], [0, value, 255]) for value in middle]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def explain_image(network: Network, image: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
    """Paints what counts for the most probable class of a record, uint8 (h, w, 3), seen through its centre crop.

    Returns the class, and uint8 (size, size, 3) by each method of evaluation.attribution but occlusion, which takes as
    long as all others, and those that the network has no ReLU for.
    """
    explainer, size = Explainer(network, Settings(steps=_STEPS)), network.variant.input_size
    crop = np.asarray(centre_crop(image, size))
    pixels = explainer.prepare(crop[None])
    label = explainer.compute_logits(explainer.params, pixels).argmax(axis=1).astype(np.int32)
    painted = {}
    for method in METHODS:
        if method != 'occlusion' and explainer.can_explain(method):
            found = explainer.explain(explainer.params, pixels, label, method=method)
            numbers = make_maps(found, method=method, size=size)[0]
            painted[method] = paint_signal(found[0]) if method in SIGNALS else paint_map(numbers, crop)
    return int(label[0]), painted
