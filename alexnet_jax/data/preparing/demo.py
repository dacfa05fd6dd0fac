"""Draws the embedded dataset: five shapes, striped or spotted, drawn from a fixed seed.

It is made so that a convolutional network must do its work: the class is a shape and a texture together,
while colour, place, size, rotation, light, background and stripe direction say nothing about it. A linear
model on pixels stays near chance (docs/data.md has the measurement); a quarter-width AlexNet learns it in
minutes on a CPU. Mirroring an image never changes its class.
"""

import io
import math

import numpy as np
from PIL import Image

from alexnet_jax.data.preparing.dataset_spec import DatasetSpec, Example, ListedSplit, hash_recipe
from alexnet_jax.data.versions import FIRST_VERSION

SHAPES = ('disc', 'ring', 'triangle', 'square', 'star')
FILLS = ('striped', 'spotted')
CLASSES = tuple(f'{fill}_{shape}' for shape in SHAPES for fill in FILLS)
COUNTS = {'train': 5000, 'validation': 1000}  # balanced; 100 validation images a class give an error to about 1 %

SEED = 20121203  # the paper's week at NIPS; any other number draws another dataset
SIDE = 256
SAMPLES = {'train': 0, 'validation': 1}  # enters the seed, so that no validation image is a training image
RADIUS = (62.0, 98.0)  # of the circle around the shape, px: 48 to 77 % of the frame, so conv1 sees it whole
OFFSET = 26.0  # px from the centre, each way: a 224 crop never cuts more than an edge
TILT = math.pi / 6  # largest rotation each way: enough to defeat a template, little enough to learn quickly
PERIOD = {'striped': (38.0, 52.0), 'spotted': (28.0, 38.0)}  # px: a stripe is wider than conv1's 11 px kernel
SPOT_RADIUS = 0.31  # in periods: a spot is 17 px across or more, four strides of conv1
GROUND_TEXTURE = 8.0  # grey levels: the background carries either texture too, faintly
CLUTTER = (3, 7)  # plain soft blobs behind the object
EDGE = 0.75  # px, half the width of an antialiased edge
QUALITY = 90  # JPEG: smooth drawings, no need for a photograph's 95

# n-fold star-shaped polygons, by points and inner over outer radius: at cos(pi / n) the sides are straight.
POLYGONS = {'triangle': (3, math.cos(math.pi / 3)), 'square': (4, math.cos(math.pi / 4)), 'star': (5, 0.45)}
SIZE = {'disc': 0.88, 'ring': 0.94, 'triangle': 1.14, 'square': 1.05, 'star': 1.14}  # equal to the eye
RING_HOLE = 0.46  # inner over outer radius

_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5  # pixel centres


def make_demo_spec(*, train: int = COUNTS['train'], validation: int = COUNTS['validation']) -> DatasetSpec:
    """Makes the spec of the embedded dataset, of so many images a split."""
    counts = {'train': train, 'validation': validation}
    return DatasetSpec(
        name='demo',
        classes=CLASSES,
        splits={
            split: ListedSplit(split, [Example(f'{i:06d}', get_label(i), (split, i)) for i in range(count)])
            for split, count in counts.items()
        },
        to_record=_to_jpeg,
        version=FIRST_VERSION,  # nothing here is resized: its bytes have not changed since
        recipe=hash_recipe('demo', SEED, counts),
    )


def get_label(index: int) -> int:
    """Returns the class of image `index` of either split: classes take turns, so every class has as many images."""
    return index % len(CLASSES)


def render(split: str, index: int) -> tuple[np.ndarray, int]:
    """Draws image `index`, 0 or more, of a split: uint8 (256, 256, 3) RGB, and its label; a pure function."""
    rng = np.random.default_rng((SEED, SAMPLES[split], index))
    label = get_label(index)
    shape, fill = SHAPES[label // len(FILLS)], FILLS[label % len(FILLS)]

    image = _background(rng)
    radius = rng.uniform(*RADIUS) * SIZE[shape]
    reach = OFFSET * (1 - (radius - RADIUS[0]) / (2 * RADIUS[1]))  # large objects stay nearer to the centre
    x, y = _X - SIDE / 2 - rng.uniform(-reach, reach), _Y - SIDE / 2 - rng.uniform(-reach, reach)
    inside = _coverage(_distance(shape, x, y, radius=radius, tilt=rng.uniform(-TILT, TILT)))
    pattern = _texture(fill, rng)
    ink, paper = _object_colours(rng)
    image += inside * (paper + pattern * (ink - paper) - image)
    return _illuminate(image, rng), label


def _background(rng: np.random.Generator) -> np.ndarray:
    """Draws a muted gradient with noise, a faint texture of either kind, and soft blobs: float32 (3, h, w)."""
    first, second = (_hsv(rng.uniform(), rng.uniform(0.1, 0.45), rng.uniform(0.35, 0.8)) for _ in range(2))
    angle = rng.uniform(0, 2 * math.pi)
    ramp = 0.5 + ((_X - SIDE / 2) * math.cos(angle) + (_Y - SIDE / 2) * math.sin(angle)) / (1.5 * SIDE)
    image = first + ramp * (second - first)
    for _ in range(rng.integers(*CLUTTER)):
        x, y, half = *rng.integers(0, SIDE, 2), int(rng.integers(14, 28))
        here = np.s_[max(y - half, 0) : y + half, max(x - half, 0) : x + half]  # blending only where it shows
        blob = _coverage(np.hypot(_X[here] - x, (_Y[here] - y) * rng.uniform(1.0, 1.6)) - half)
        colour = _hsv(rng.uniform(), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.9))
        image[:, *here] += 0.5 * blob * (colour - image[:, *here])
    shade = GROUND_TEXTURE * (_texture(FILLS[rng.integers(2)], rng) - 0.5)
    for cells, strength in ((5, 22.0), (24, 9.0)):
        shade = shade + strength * _noise(cells, rng)
    return image + shade


def _distance(shape: str, x: np.ndarray, y: np.ndarray, *, radius: float, tilt: float) -> np.ndarray:
    """Computes the distance to the outline in pixels, negative inside; exact along edges, where it is used."""
    r = np.sqrt(x * x + y * y)
    if shape == 'disc':
        return r - radius
    if shape == 'ring':
        middle, half = radius * (1 + RING_HOLE) / 2, radius * (1 - RING_HOLE) / 2
        return np.abs(r - middle) - half
    points, inner = POLYGONS[shape]
    wedge = math.pi / points
    # Fold the plane into the half wedge between a tip (angle 0) and an inner corner: one edge is left.
    turns = (np.arctan2(x, -y) - tilt) / (2 * wedge)
    folded = 2 * wedge * np.abs(turns - np.rint(turns))
    along, across = math.cos(wedge) * inner - 1, math.sin(wedge) * inner
    length = math.hypot(along, across)
    return ((r * np.cos(folded) - radius) * across - r * np.sin(folded) * along) / length


def _texture(fill: str, rng: np.random.Generator) -> np.ndarray:
    """Draws stripes or spots over the whole frame at any angle and phase: float32 (h, w), 0 paper to 1 ink."""
    period, angle = rng.uniform(*PERIOD[fill]), rng.uniform(0, math.pi)
    x, y, cos, sin = _X / period, _Y / period, math.cos(angle), math.sin(angle)
    u = x * cos + y * sin + rng.uniform()
    v = y * cos - x * sin + rng.uniform()
    u -= np.rint(u)  # periods to the nearest line of the lattice
    if fill == 'striped':
        return _coverage(period * (np.abs(u) - 0.25))
    v -= np.rint(v)
    return _coverage(period * (np.sqrt(u * u + v * v) - SPOT_RADIUS))


def _object_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples two saturated colours, far apart in hue and in brightness, either of them the ink."""
    hue = rng.uniform()
    light = _hsv(hue, rng.uniform(0.35, 0.8), rng.uniform(0.9, 1.0))
    dark = _hsv(hue + rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.0), rng.uniform(0.25, 0.5))
    return (light, dark) if rng.integers(2) else (dark, light)


def _illuminate(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Applies brightness, contrast, a slight colour cast and light from one side: uint8 (h, w, 3)."""
    contrast = rng.uniform(0.8, 1.15)
    gain = rng.uniform(0.8, 1.1) * rng.uniform(0.95, 1.05, (3, 1, 1)).astype(np.float32)
    angle, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.2)
    light = 1 + slope * ((_X / SIDE - 0.5) * math.cos(angle) + (_Y / SIDE - 0.5) * math.sin(angle))
    image = ((image - 128) * contrast + 128) * light * gain
    return np.ascontiguousarray(np.clip(np.rint(image), 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _noise(cells: int, rng: np.random.Generator) -> np.ndarray:
    """Samples smooth noise of about unit scale that changes over 1/cells of the frame: float32 (h, w)."""
    lattice = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(lattice.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _coverage(distance: np.ndarray) -> np.ndarray:
    """Computes the share of each pixel that lies inside, 0..1, from its distance to the edge in pixels."""
    return np.clip(0.5 - distance / (2 * EDGE), 0, 1)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Converts to RGB, float32 (3, 1, 1), 0..255; hue in turns, saturation and value 0..1."""
    offset = np.mod(np.array([5, 3, 1]).reshape(3, 1, 1) + 6 * hue, 6)
    return (255 * value * (1 - saturation * np.clip(np.minimum(offset, 4 - offset), 0, 1))).astype(np.float32)


def _to_jpeg(source: tuple[str, int]) -> bytes:
    image, _ = render(*source)
    out = io.BytesIO()
    Image.fromarray(image).save(out, 'JPEG', quality=QUALITY, subsampling=0)  # 4:4:4: all decoders agree
    return out.getvalue()
