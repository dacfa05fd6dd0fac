"""Brings one photograph of any size to a square of RGB, 256 x 256 as the paper trains on (section 2) or another."""

import io
import math
import os
import pathlib
import struct
import warnings
from typing import Any

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from alexnet_jax.data.image_formats import DEEP, FORMATS, explain_unidentified, is_deep
from alexnet_jax.data.preprocessing import PAPER, make_square
from alexnet_jax.data.statistics import RECORD
from alexnet_jax.errors import InputError

MIN_SIDE = 16  # shorter side in pixels; below it, enlarging to 256 invents more than 99.6 % of the pixels
MAX_ASPECT = 10  # longer over shorter side; beyond it, the central square is under a tenth of the picture
QUALITY = 95  # JPEG quality of the records: about 30 kB a photograph; docs/data.md has what others would give
# A header of 30 bytes can claim pixels that fill any memory.
MAX_PIXELS = 2**28 // 3  # 89,478,485, a quarter of a GiB as RGB, Pillow's own limit; decoding takes some times that
MAX_BYTES = 2**29  # of a file: more than so many pixels take uncompressed and transparent
_WHOLE = 2**16  # pixels of a side, more than a JPEG has: nothing is reduced while it is read
# At most eight bits a channel, whose meaning is known without a profile.
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK')


class UnusableImage(Exception):
    """A source cannot become a training image; the message is the reason."""


def photo_to_jpeg(
    data: bytes, quality: int = QUALITY, *, record_size: int = RECORD, preprocessing: str = PAPER
) -> bytes:
    """Encodes `square_image` as a JPEG of the given quality (1..100).

    Chroma is kept at full resolution (4:4:4): every decoder then gives the same pixels, which 4:2:0 leaves to taste.
    """
    square = square_image(data, record_size=record_size, preprocessing=preprocessing)
    return simplejpeg.encode_jpeg(square, quality, 'RGB', '444', fastdct=False)


def photo_to_record(data: bytes, quality: int | None, **form: Any) -> bytes:
    """Makes a record: `photo_to_jpeg` of `quality`, or where that is None the pixels of `square_image` as they are."""
    return square_image(data, **form).tobytes() if quality is None else photo_to_jpeg(data, quality, **form)


def decode_photo_crop(
    data: bytes,
    out: np.ndarray,
    *,
    top: int = 0,
    left: int = 0,
    record_size: int = RECORD,
    preprocessing: str = PAPER,
) -> None:
    """Decodes a crop of a photograph's `square_image`, with no JPEG's loss in between; see `decode_record_crop`."""
    try:
        place: Any = {'top': top, 'left': left, 'side': len(out)}
        pixels = square_image(data, **place, record_size=record_size, preprocessing=preprocessing)
    except UnusableImage as error:
        raise InputError(
            f'an image cannot be used ({error}): repair or remove it, or prepare the dataset with --on_error=skip'
        ) from error
    out[...] = pixels


def square_image(
    data: bytes,
    *,
    top: int = 0,
    left: int = 0,
    side: int | None = None,
    record_size: int = RECORD,
    preprocessing: str = PAPER,
) -> np.ndarray:
    """Resizes the shorter side to `record_size`; returns a crop of the centre square, uint8 (side, side, 3).

    Resizing is bicubic with antialiasing, in whole numbers; what has the size already keeps its pixels. A large JPEG
    is first reduced while it is read, never below twice the final size. EXIF orientation is applied; transparency is
    laid over white; CMYK becomes r = (255 - c) * (255 - k) / 255.

    The crop begins at row `top` and column `left` of the square and is `side` wide and high, None: the whole square.
    With another `preprocessing` (data/preprocessing.py) the square is
    that one's, made of all pixels of the photograph.

    Raises:
      UnusableImage: with the reason, in a few words.
    """
    try:
        pixels = _decode(data, min_side=2 * record_size if preprocessing == PAPER else _WHOLE)
    except UnidentifiedImageError as error:
        raise UnusableImage(explain_unidentified(data)) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableImage(' '.join(str(error).split()) or type(error).__name__) from error
    side = side or record_size
    # Pillow keeps a box in float32, which holds every pixel's place where the record's side is a power of two; the crop
    # alone then has the bytes that it has in the whole square.
    if preprocessing == PAPER and record_size.bit_count() == 1:
        return _resize(pixels, top=top, left=left, side=side, record_size=record_size)
    if preprocessing == PAPER:
        whole = _resize(pixels, top=0, left=0, side=record_size, record_size=record_size)
    else:
        whole = make_square(pixels, preprocessing, record_size)
    return np.ascontiguousarray(whole[top : top + side, left : left + side])


def _resize(pixels: np.ndarray, *, top: int, left: int, side: int, record_size: int) -> np.ndarray:
    """Resizes that part of the centre square which becomes the crop: rows first, then columns, each rounded to 8 bits.

    The two directions are two calls, because in one call Pillow chooses the order by the sizes, of the crop too, and
    chose otherwise before version 13.
    """
    height, width, _ = pixels.shape
    square = min(height, width)
    scale = square / record_size
    x, y, reach = (width - square) / 2 + left * scale, (height - square) / 2 + top * scale, side * scale
    margin = 2 * max(scale, 1) + 1  # the bicubic filter reaches two pixels of the larger grid to either side
    first_x, first_y = (max(0, math.floor(start - margin)) for start in (x, y))
    last_x, last_y = (math.ceil(start + reach + margin) for start in (x, y))
    image = Image.fromarray(pixels[first_y:last_y, first_x:last_x])
    x, y = x - first_x, y - first_y
    image = image.resize((side, image.height), Image.Resampling.BICUBIC, (x, 0, x + reach, image.height))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, (0, y, side, y + reach)))


def read_photo(path: str | os.PathLike[str]) -> bytes:
    """Reads an image's file; `UnusableImage` if that fails or it is too large to read."""
    try:
        check_file_size(os.stat(path).st_size)
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UnusableImage(error.strerror or str(error)) from error


def read_size(data: bytes) -> tuple[int, int]:
    """Returns width and height of an image as its header says them; `UnusableImage` if it is none."""
    try:
        return _open(data).size
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableImage(explain_unidentified(data)) from error


def check_file_size(size: int) -> int:
    """Returns the size of an image's file in bytes; `UnusableImage` if it is too large to read."""
    if size > MAX_BYTES:
        raise UnusableImage(f'a file of {size:,} bytes; at most {MAX_BYTES:,} are read')
    return size


def _open(data: bytes) -> Image.Image:
    """Opens the image, of which only the header is read; refuses too many pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # is refused below, in every thread
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels = image.width * image.height
    except Image.DecompressionBombError:  # twice as many, or more
        pixels = MAX_PIXELS + 1
    if pixels > MAX_PIXELS:
        raise UnusableImage(f'more than {MAX_PIXELS:,} pixels; make it smaller')
    return image


def _decode(data: bytes, *, min_side: int) -> np.ndarray:
    """Decodes to uint8 (h, w, 3), upright; neither side under `min_side` if the photograph's is not."""
    image = _open(data)
    if is_deep(image, data):
        raise UnusableImage(DEEP)
    if image.mode not in MODES:
        raise UnusableImage(f'colour mode {image.mode}; convert it to RGB')
    short, long = sorted(image.size)
    if short < MIN_SIDE:
        raise UnusableImage(f'{image.width}x{image.height} is smaller than {MIN_SIDE} pixels')
    if long > MAX_ASPECT * short:
        raise UnusableImage(f'{image.width}x{image.height} is longer than {MAX_ASPECT}:1')
    upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if data.startswith(b'\xff\xd8') and image.mode in ('RGB', 'L') and upright:
        try:
            # Same pixels as Pillow's, in two thirds of the time.
            return simplejpeg.decode_jpeg(data, 'RGB', min_height=min_side, min_width=min_side, min_factor=2)
        except ValueError:
            pass  # simplejpeg takes any irregularity for an error; Pillow, below, tells stray bytes from lost ones
    image.draft(None, (min_side, min_side))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.asarray(image.convert('RGB'))
