"""Draws a picture that shows whether a dataset and its augmentation are right.

A row for each of the first images that training with this seed is shown: the record with its crops drawn in, the crops
of the first epochs, and lighting as sampled and exaggerated. Above them the mean image and the principal components.
"""

import io
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from alexnet_jax.data.augment import CROP, count_offsets, lighting_basis, sample_augmentation
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.pipeline import epoch_order, read_whole_image
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError
from alexnet_jax.files import write_file
from alexnet_jax.model.zoo import PAPER, RELEASED

EPOCHS = 4  # columns of crops
EXAGGERATION = 8  # of lighting: 0.1 of a standard deviation becomes 0.8
LIGHTING = ((0, 1), (0, EXAGGERATION), (1, EXAGGERATION))  # columns of lighting: epoch, times its strength
COLOURS = ('#e41a1c', '#1f78d4', '#2ca02c', '#ff8c00')  # of the epochs' crops
INK, FAINT, WHITE = '#222222', '#666666', '#ffffff'
SIDE = 192  # px, of a record; crops are drawn at its scale, so that they compare
CROPS = {RECORD: CROP, 32: 24}  # of records of a size: the paper's, and those of Krizhevsky's networks for CIFAR-10
GAP, LINE, MARGIN = 12, 17, 24  # px
STRIP = (380, 34)  # px, of a principal component


def write_contact_sheet(dataset: Dataset, path: str | os.PathLike[str], *, seed: int = 0, images: int = 8) -> None:
    """Writes the sheet of the training split as a PNG, in a folder that exists; the same file for the same arguments.

    Draws the first `images` images, at least 1, of the training run that has this `seed`; fewer where there are fewer.

    Raises:
      InputError: the file cannot be written, a record is damaged, or no network crops records of this size.
    """
    if (size := dataset.record_size) not in CROPS:
        known = ' and '.join(f'{size}x{size}' for size in CROPS)
        raise InputError(f'{dataset.name} has records of {size}x{size}: crops can be shown of {known} only')
    sheet = _Sheet(dataset, seed=seed)
    order = epoch_order(len(sheet.records), seed=seed, epoch=0)[:images]
    rows = [sheet.draw_header(), *(sheet.draw_row(int(record)) for record in order)]
    picture = Image.fromarray(np.concatenate(list(map(np.asarray, rows))))
    content = io.BytesIO()
    ImageOps.expand(picture, MARGIN, WHITE).save(content, 'PNG')
    write_file(pathlib.Path(path), content.getvalue())


class _Sheet:
    """Draws the parts of a sheet; `px` converts pixels of a record to those of the sheet."""

    def __init__(self, dataset: Dataset, *, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.records = dataset.records('train')
        self.crop = CROPS[dataset.record_size]
        self.offset_count = count_offsets(self.crop, record=dataset.record_size)
        wide = self.px(self.crop)  # columns: the record, its crops, lighting
        widths = (SIDE + 2 * GAP, *[wide + GAP] * (EPOCHS - 1), wide + 2 * GAP, *[wide + GAP] * len(LIGHTING))
        self.lefts, self.width = np.cumsum([0, *widths[:-1]]).tolist(), sum(widths)

    def px(self, length: float) -> int:
        return round(length * SIDE / self.dataset.record_size)

    def scale(self, image: np.ndarray) -> Image.Image:
        """Scales a picture to the sheet; enlarged, each pixel is a square."""
        picture = _make_picture(image)
        return picture.resize((self.px(picture.width), self.px(picture.height)), Image.Resampling.BOX)

    def make_basis(self, scale: str) -> np.ndarray:
        return lighting_basis(self.dataset.rgb_covariance, scale=scale, strength=RELEASED.lighting.strength)

    def draw_header(self) -> Image.Image:
        """Draws title, mean image, principal components, how to read the rest, and the names of the columns."""
        dataset, top, left = self.dataset, 2 * LINE, SIDE + 2 * GAP
        bottom = top + SIDE + 2 * LINE + GAP
        picture = Image.new('RGB', (self.width, bottom + 2 * LINE), WHITE)
        brush = ImageDraw.Draw(picture)
        title = f'{dataset.name}: {len(self.records):,} training images, {len(dataset.classes)} classes'
        _write(brush, (0, 0), title, size=20)
        picture.paste(self.scale(dataset.mean_image), (0, top))
        _write(brush, (0, top + SIDE + 3), 'mean image')

        variances, axes = np.linalg.eigh(dataset.rgb_covariance)
        centre = dataset.mean_image.mean(axis=(0, 1))
        _write(brush, (left, top), 'Principal components of all RGB pixels: mean colour - 2 to + 2 sigma')
        for number, i in enumerate((2, 1, 0), 1):
            sigma, axis = np.sqrt(max(variances[i], 0)), axes[:, i]
            axis = axis * np.sign(axis[np.abs(axis).argmax()])  # its sign means nothing: the larger part to the right
            ramp = centre + np.linspace(-2, 2, STRIP[0])[:, None] * sigma * axis
            y = top + LINE + 6 + (number - 1) * (STRIP[1] + 2 * LINE - 6)
            picture.paste(_make_picture(np.tile(ramp, (STRIP[1], 1, 1))), (left, y))
            text = f'{number}: sigma {sigma:.1f} of 255, direction ({axis[0]:+.2f}, {axis[1]:+.2f}, {axis[2]:+.2f})'
            _write(brush, (left, y + STRIP[1] + 2), text, colour=FAINT)

        released, paper = (
            ', '.join(f'{size:.2f}' for size in np.linalg.norm(self.make_basis(variant.lighting.scale), axis=0)[::-1])
            for variant in (RELEASED, PAPER)
        )
        size, places = (f'{side} x {side}' for side in (self.crop, self.offset_count))
        times = EXAGGERATION
        lines = (
            f'A row is a training image: the first ones that a run with seed {self.seed} sees, after shuffling.',
            f'Its crops of four epochs: {size} pixels at any of {places} places, framed on the record in their',
            'colour; half of all crops are mirrored, which the caption says. (One crop per image; variant released',
            'has 32 neighbours share one, unless told not to.)',
            'Lighting adds one colour to all pixels of an image: the sum of the components on the left, each times',
            f'a random number. As drawn it is hardly seen; times {times} it tints or shades, the same everywhere.',
            f'Standard deviations of lighting along 1, 2, 3: {released} (variant released, shown);',
            f'{paper} (variant paper). The caption has the colour that was added.',
            'All pictures are before the mean image is subtracted, and clipped to 0..255.',
        )
        for i, line in enumerate(lines):
            _write(brush, (left + STRIP[0] + 4 * GAP, top + i * (LINE + 3)), line)

        names = ['record', *(f'crop, epoch {epoch + 1}' for epoch in range(EPOCHS))]
        names += [f'lighting x {times}, epoch {epoch + 1}' for epoch, times in LIGHTING]
        colours = (INK, *COLOURS, *[INK] * len(LIGHTING))
        for name, column, colour in zip(names, self.lefts, colours, strict=True):
            _write(brush, (column, bottom + LINE // 2), name, size=14, colour=colour)
        return picture

    def draw_row(self, record: int) -> Image.Image:
        """Draws one record, its crops and its lighting."""
        image = read_whole_image(self.records, record, record_size=self.dataset.record_size)
        options: Any = {'seed': self.seed, 'record': record, 'offset_count': self.offset_count}
        samples = [sample_augmentation(epoch=epoch, **options) for epoch in range(EPOCHS)]
        framed = self.scale(image)
        brush = ImageDraw.Draw(framed)
        rest = max(self.px(1), 1) - 1  # of a pixel that is enlarged, from its first
        for sample, colour in zip(samples, COLOURS, strict=True):
            first = self.px(sample.left), self.px(sample.top)
            last = (self.px(corner + self.crop - 1) + rest for corner in (sample.left, sample.top))
            brush.rectangle((*first, *last), outline=colour, width=2)
        tiles = [(framed, [self.dataset.classes[self.records[record][1]], f'record {record}'])]
        windows = (image[s.top : s.top + self.crop, s.left : s.left + self.crop] for s in samples)
        crops = [view[:, ::-1] if s.flip else view for view, s in zip(windows, samples, strict=True)]
        for view, sample in zip(crops, samples, strict=True):
            caption = [f'{sample.top} down, {sample.left} right', '<-> mirrored' if sample.flip else '']
            tiles.append((self.scale(view), caption))
        for epoch, times in LIGHTING:
            light = times * (self.make_basis(RELEASED.lighting.scale) @ samples[epoch].normals)
            caption = ['R {:+d}  G {:+d}  B {:+d}'.format(*np.rint(light).astype(int))]
            tiles.append((self.scale(crops[epoch] + light), caption))

        picture = Image.new('RGB', (self.width, SIDE + 2 * LINE + GAP), WHITE)
        brush = ImageDraw.Draw(picture)
        for i, ((tile, caption), left) in enumerate(zip(tiles, self.lefts, strict=True)):
            picture.paste(tile, (left, 0))
            if 0 < i <= EPOCHS:
                brush.rectangle((left - 3, 0, left - 2, tile.height - 1), fill=COLOURS[i - 1])
            for line, text in enumerate(caption):
                _write(brush, (left, tile.height + 2 + line * LINE), text, width=tile.width)
        return picture


def _make_picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.rint(image).clip(0, 255).astype(np.uint8)))


def _write(
    brush: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    *,
    size: int = 13,
    colour: str = INK,
    width: float = np.inf,
) -> None:
    """Writes `text`, or as much of its beginning as `width` pixels hold, and then three dots."""
    font, shown = ImageFont.load_default(size), text
    while text and font.getlength(shown) > width:
        text = text[:-1]
        shown = f'{text}...'
    brush.text(corner, shown, colour, font)
