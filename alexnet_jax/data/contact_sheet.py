"""A picture by which a person can see that a dataset and its augmentation are right.

A row for each of the first images that training with this seed is shown: the record with its crops drawn in, the crops
of the first epochs, and lighting as drawn and exaggerated. Above them the mean image and the principal components.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alexnet_jax import InputError
from alexnet_jax.data.augment import CROP, crop, draw, lighting_basis, offsets_of
from alexnet_jax.data.pipeline import epoch_order, whole
from alexnet_jax.data.source import Dataset, open_dataset
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.model.catalogue import PAPER, RELEASED

EPOCHS = 4  # columns of crops
EXAGGERATION = 8  # of lighting: 0.1 of a standard deviation becomes 0.8
LIT = ((0, 1), (0, EXAGGERATION), (1, EXAGGERATION))  # columns of lighting: epoch, times its strength
COLOURS = ('#e41a1c', '#1f78d4', '#2ca02c', '#ff8c00')  # of the epochs' crops
INK, FAINT, WHITE = '#222222', '#666666', '#ffffff'
SIDE = 192  # px, of a record; crops are drawn at its scale, so that they compare
CROPS = {RECORD: CROP, 32: 24}  # of records of a size: the paper's, and those of Krizhevsky's networks for CIFAR-10
GAP, LINE, MARGIN = 12, 17, 24  # px
STRIP = (380, 34)  # px, of a principal component


def draw_dataset(name: str, *, data_dir: str | os.PathLike[str]) -> tuple[dict[str, str], str]:
    """Writes DATA_DIR/NAME/contact_sheet.png; returns where it is, for programs and for people."""
    path = pathlib.Path(data_dir) / name / 'contact_sheet.png'
    write_contact_sheet(open_dataset(name, data_dir=data_dir), path)
    return {'path': str(path)}, f'drawn: {path}'


def write_contact_sheet(dataset: Dataset, path: str | os.PathLike[str], *, seed: int = 0, images: int = 8) -> None:
    """Writes the sheet of the training split as a PNG; the same file for the same arguments.

    Args:
      dataset: what `open_dataset` gives.
      path: the file, replaced if it exists; its folder is there already.
      seed: of the training run whose first images these are.
      images: rows, at least 1; fewer where the split has fewer.

    Raises:
      InputError: the file cannot be written, a record is damaged, or no network crops records of this size.
    """
    if dataset.record_size not in CROPS:
        size, known = dataset.record_size, ' and '.join(f'{size}x{size}' for size in CROPS)
        raise InputError(f'{dataset.name} has records of {size}x{size}: crops can be shown of {known} only')
    form = _Form(dataset.record_size, CROPS[dataset.record_size])
    records = dataset.records('train')
    order = epoch_order(len(records), seed=seed, epoch=0)[:images]
    rows = [_header(dataset, form, seed=seed), _headings(form)]
    for record in map(int, order):
        image = whole(records, record, record_size=form.record)
        class_name = dataset.classes[records[record][1]]
        rows.append(_row(image, dataset, form, class_name=class_name, record=record, seed=seed))
    sheet = _canvas(max(row.width for row in rows) + 2 * MARGIN, sum(row.height for row in rows) + 2 * MARGIN)
    top = MARGIN
    for row in rows:
        sheet.paste(row, (MARGIN, top))
        top += row.height
    try:
        sheet.save(pathlib.Path(path), 'PNG')
    except OSError as error:
        raise InputError(f'cannot write {path} ({error.strerror}): choose another file') from error


@dataclasses.dataclass(frozen=True)
class _Form:
    """Sides of record and crop in their own pixels, and how large they are drawn."""

    record: int
    crop: int

    def px(self, length: float) -> int:
        """On the sheet."""
        return round(length * SIDE / self.record)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the columns: the record, its crops, lighting."""
        wide = self.px(self.crop)
        return (SIDE + 2 * GAP, *[wide + GAP] * (EPOCHS - 1), wide + 2 * GAP, *[wide + GAP] * len(LIT))

    def scaled(self, image: np.ndarray) -> Image.Image:
        """A picture as it is drawn; enlarged, each pixel is a square."""
        picture = Image.fromarray(_bytes(image))
        return picture.resize((self.px(picture.width), self.px(picture.height)), Image.Resampling.BOX)


def _header(dataset: Dataset, form: _Form, *, seed: int) -> Image.Image:
    """Title, mean image, principal components and how to read the rest."""
    picture = _canvas(sum(form.widths), 2 * LINE + SIDE + 2 * LINE + GAP)
    brush = ImageDraw.Draw(picture)
    count, classes = len(dataset.records('train')), len(dataset.classes)
    brush.text((0, 0), f'{dataset.name}: {count:,} training images, {classes} classes', INK, _font(20))
    top = 2 * LINE
    picture.paste(form.scaled(dataset.mean_image), (0, top))
    brush.text((0, top + SIDE + 3), 'mean image', INK, _font(13))

    left = SIDE + 2 * GAP
    variances, axes = np.linalg.eigh(dataset.rgb_covariance)
    centre = dataset.mean_image.mean(axis=(0, 1))
    brush.text((left, top), 'Principal components of all RGB pixels: mean colour - 2 to + 2 sigma', INK, _font(13))
    for place, i in enumerate(reversed(range(3))):
        sigma, axis = np.sqrt(max(variances[i], 0)), axes[:, i]
        axis = axis * np.sign(axis[np.abs(axis).argmax()])  # its sign means nothing: the larger part to the right
        ramp = centre + np.linspace(-2, 2, STRIP[0])[:, None] * sigma * axis
        y = top + LINE + 6 + place * (STRIP[1] + 2 * LINE - 6)
        picture.paste(Image.fromarray(_bytes(np.tile(ramp, (STRIP[1], 1, 1)))), (left, y))
        text = f'{place + 1}: sigma {sigma:.1f} of 255, direction ({axis[0]:+.2f}, {axis[1]:+.2f}, {axis[2]:+.2f})'
        brush.text((left, y + STRIP[1] + 2), text, FAINT, _font(13))

    left += STRIP[0] + 4 * GAP
    released, paper = (
        ', '.join(f'{size:.2f}' for size in np.linalg.norm(_basis(dataset, variant.lighting.scale), axis=0)[::-1])
        for variant in (RELEASED, PAPER)
    )
    size, places = f'{form.crop} x {form.crop}', offsets_of(form.crop, record=form.record)
    lines = (
        f'A row is a training image: the first ones that a run with seed {seed} sees, after shuffling.',
        f'Its crops of four epochs: {size} pixels at any of {places} x {places} places, framed on the record in their',
        'colour; half of all crops are mirrored, which the caption says. (One crop per image; variant released',
        'has 32 neighbours share one, unless told not to.)',
        'Lighting adds one colour to all pixels of an image: the sum of the components on the left, each times',
        f'a random number. As drawn it is hardly seen; times {EXAGGERATION} it tints or shades, the same everywhere.',
        f'Standard deviations of lighting along 1, 2, 3: {released} (variant released, shown);',
        f'{paper} (variant paper). The caption has the colour that was added.',
        'All pictures are before the mean image is subtracted, and clipped to 0..255.',
    )
    for i, line in enumerate(lines):
        brush.text((left, top + i * (LINE + 3)), line, INK, _font(13))
    return picture


def _headings(form: _Form) -> Image.Image:
    """The names of the columns."""
    widths = form.widths
    picture = _canvas(sum(widths), 2 * LINE)
    brush = ImageDraw.Draw(picture)
    names = ['record', *(f'crop, epoch {epoch + 1}' for epoch in range(EPOCHS))]
    names += [f'lighting x {times}, epoch {epoch + 1}' for epoch, times in LIT]
    for i, name in enumerate(names):
        brush.text((sum(widths[:i]), LINE // 2), name, COLOURS[i - 1] if 0 < i <= EPOCHS else INK, _font(14))
    return picture


def _row(image: np.ndarray, dataset: Dataset, form: _Form, *, class_name: str, record: int, seed: int) -> Image.Image:
    """One record, uint8 (h, w, 3), and what becomes of it."""
    places = offsets_of(form.crop, record=form.record)
    chances = [draw(seed=seed, epoch=epoch, record=record, offsets=places) for epoch in range(EPOCHS)]
    drawn = form.scaled(image)
    brush = ImageDraw.Draw(drawn)
    rest = max(form.px(1), 1) - 1  # of a pixel that is enlarged, from its first
    for chance, colour in zip(chances, COLOURS, strict=True):
        first = form.px(chance.left), form.px(chance.top)
        last = (form.px(corner + form.crop - 1) + rest for corner in (chance.left, chance.top))
        brush.rectangle((*first, *last), outline=colour, width=2)
    tiles = [(drawn, [class_name, f'record {record}'])]
    for chance in chances:
        caption = [f'{chance.top} down, {chance.left} right', '<-> mirrored' if chance.flip else '']
        tiles.append((form.scaled(crop(image, chance, size=form.crop)), caption))
    basis = _basis(dataset, RELEASED.lighting.scale)
    for epoch, times in LIT:
        colour = times * (basis @ chances[epoch].normals)
        lit = crop(image, chances[epoch], size=form.crop) + colour
        tiles.append((form.scaled(lit), ['R {:+d}  G {:+d}  B {:+d}'.format(*np.rint(colour).astype(int))]))

    picture = _canvas(sum(form.widths), SIDE + 2 * LINE + GAP)
    brush = ImageDraw.Draw(picture)
    for i, (tile, caption) in enumerate(tiles):
        left = sum(form.widths[:i])
        picture.paste(tile, (left, 0))
        if 0 < i <= EPOCHS:
            brush.rectangle((left - 3, 0, left - 2, tile.height - 1), fill=COLOURS[i - 1])
        for line, text in enumerate(caption):
            brush.text((left, tile.height + 2 + line * LINE), _fitting(text, tile.width), INK, _font(13))
    return picture


def _basis(dataset: Dataset, scale: str) -> np.ndarray:
    return lighting_basis(dataset.rgb_covariance, scale=scale, strength=RELEASED.lighting.strength)


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.rint(image).clip(0, 255).astype(np.uint8))


def _canvas(width: int, height: int) -> Image.Image:
    return Image.new('RGB', (width, height), WHITE)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitting(text: str, width: int) -> str:
    """`text`, or as much of its beginning as `width` pixels hold."""
    if _font(13).getlength(text) <= width:
        return text
    while text and _font(13).getlength(f'{text}...') > width:
        text = text[:-1]
    return f'{text}...'
