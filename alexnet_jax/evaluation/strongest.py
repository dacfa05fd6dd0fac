"""Finds the images, and the patches of them, that excite each channel of a layer most (Zeiler and Fergus 2013, 4.1)."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from PIL import Image

from alexnet_jax.data.dataset import Source
from alexnet_jax.data.pipeline import read_whole_image
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.features import iter_stages
from alexnet_jax.evaluation.views import get_views
from alexnet_jax.model.alexnet import get_stage_shapes
from alexnet_jax.model.network import Network
from alexnet_jax.model.receptive_field import get_receptive_fields

SHOWN = 96  # channels of a picture: all of the paper's conv1
_TILE, _GAP, _WIDE_GAP = 40, 2, 12  # pixels of a patch, between patches, between channels
_BACKGROUND, _NOTHING = 255, 200  # grey of gaps, and of what lies outside of the crop or excites nothing


@dataclasses.dataclass(frozen=True)
class Strongest:
    """The images that excite each channel most, each with the place where it does so most, the strongest first.

    Attributes:
      values: float32 (channels, n), what the stage has there.
      records: int64 (channels, n), which images, each of a channel's once; of equal values the first images.
      boxes: int32 (channels, n, 4), top, left, bottom, right (exclusive) of the pixels of the record that the unit
        there reads, all in the centre crop.
    """

    values: np.ndarray
    records: np.ndarray
    boxes: np.ndarray


def find_strongest(
    network: Network,
    mesh: Mesh,
    records: Source,
    *,
    stage: str,
    count: int,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> Strongest:
    """Finds the `count` images of `records`, or all if there are fewer; arguments and errors as of `iter_features`.

    Raises:
      InputError: also where the network gives no numbers.
    """
    options: dict[str, Any] = {'batch_size': batch_size, 'progress': progress, 'summarise': _find_peaks}
    best: list[np.ndarray] = []  # values, records and places: (at most count, channels)
    done = 0
    for rows, labels in iter_stages(network, mesh, records, stages=(stage,), **options):
        values, places = rows[stage]
        if np.isnan(values).any():
            raise InputError(f'{network.source} gives no numbers for {stage}: its weights are damaged')
        numbers = np.broadcast_to(np.arange(done, done + len(labels))[:, None], values.shape)
        done += len(labels)
        found = [values, numbers, places]
        best = [np.concatenate(pair) for pair in zip(best, found, strict=True)] if best else found
        order = np.argsort(-best[0], axis=0, kind='stable')[:count]
        best = [np.take_along_axis(array, order, axis=0) for array in best]
    values, numbers, places = (array.T for array in best)

    variant = network.variant
    shape = get_stage_shapes(variant, num_classes=len(network.classes))[stage]
    whole = np.array([[0, variant.input_size]])
    rows_read, columns_read = get_receptive_fields(variant).get(stage, (whole, whole))
    down, across = np.divmod(places, shape[1] if len(shape) == 3 else 1)
    ((top, left, _),) = get_views('centre', variant.input_size, record=variant.record_size)
    (tops, bottoms), (lefts, rights) = np.moveaxis(rows_read[down], -1, 0), np.moveaxis(columns_read[across], -1, 0)
    boxes = np.stack([tops + top, lefts + left, bottoms + top, rights + left], axis=-1)
    return Strongest(values, numbers, boxes.astype(np.int32))


def _find_peaks(x: Array) -> tuple[Array, Array]:
    """Finds the largest of each channel of (b, h, w, c) or (b, c): (b, c), and where it is, int32, row by row."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    places = jnp.argmax(flat, axis=1)  # NaN, where there is one, which a maximum on XLA:CPU may leave out
    values = jnp.take_along_axis(flat, places[:, None], axis=1)[:, 0]
    return values, places.astype(jnp.int32)


def choose_channels(total: int, *, towers: int) -> list[list[int]]:
    """Chooses the channels of a picture, at most SHOWN: the first of each tower, as many of each."""
    own = total // towers
    return [list(range(t * own, t * own + min(own, SHOWN // towers))) for t in range(towers)]


def draw_strongest(
    found: Strongest, records: Source, *, record_size: int, groups: Sequence[Sequence[int]]
) -> Image.Image:
    """Draws the patches of groups of channels, such as those of `choose_channels`, with a gap between groups.

    Each channel is a square of patches in reading order. A channel that no image excites is grey, as is what lies
    outside of the crop.
    """
    columns = math.ceil(math.sqrt(found.values.shape[1]))

    def draw_channel(channel: int) -> Image.Image:
        patches = [
            _cut_patch(found, records, channel, n, record_size=record_size) for n in range(found.values.shape[1])
        ]
        return tile_groups([patches], columns=columns, gap=_GAP)

    return tile_groups([[draw_channel(channel) for channel in group] for group in groups], columns=12, gap=_WIDE_GAP)


def tile_groups(groups: Sequence[Sequence[Image.Image]], *, columns: int, gap: int) -> Image.Image:
    """Arranges tiles of one size in rows, with gaps between them, and twice the gap between groups."""
    width, height = next(tile.size for group in groups for tile in group)
    wide = min(columns, max(map(len, groups)))
    rows = [math.ceil(len(group) / wide) for group in groups]
    down = sum(rows) * (height + gap) + (len(groups) - 1) * gap - gap
    picture = Image.new('RGB', (wide * (width + gap) - gap, down), (_BACKGROUND,) * 3)
    y = 0
    for group, count in zip(groups, rows, strict=True):
        for place, tile in enumerate(group):
            row, column = divmod(place, wide)
            picture.paste(tile, (column * (width + gap), y + row * (height + gap)))
        y += count * (height + gap) + gap
    return picture


def _cut_patch(found: Strongest, records: Source, channel: int, number: int, *, record_size: int) -> Image.Image:
    side = int((found.boxes[..., 2:] - found.boxes[..., :2]).max())
    patch = Image.new('RGB', (side, side), (_NOTHING,) * 3)
    if found.values[channel].any():
        pixels = read_whole_image(records, int(found.records[channel, number]), record_size=record_size)
        top, left, bottom, right = found.boxes[channel, number].tolist()
        # What a box lacks is beyond the crop's first row or column where it begins there, else beyond the last.
        edge = int(found.boxes[..., :2].min())
        y = side - (bottom - top) if top == edge else 0
        x = side - (right - left) if left == edge else 0
        patch.paste(Image.fromarray(pixels[top:bottom, left:right]), (x, y))
    return patch.resize((_TILE, _TILE), Image.Resampling.BICUBIC)
