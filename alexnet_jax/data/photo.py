"""Brings one photograph of any size to a square of RGB, 256 x 256 as the paper trains on (section 2) or another."""

import io
import os
import pathlib
import struct
import threading
import warnings
from typing import Any

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from alexnet_jax.data.decode import copy_crop
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
BICUBIC = ResizeAlg.convolution(FilterType.catmull_rom)  # Pillow's BICUBIC: stretched to the source's pixels, no alias


class UnusableImage(Exception):
    """A source cannot become a training image; the message is the reason."""


class _ThreadResizer(threading.local):
    """Keeps one resizer for each thread: its buffers take longer to make than an image to resize."""

    def __init__(self) -> None:
        self.resizer = Resizer()


_thread = _ThreadResizer()


def photo_to_jpeg(
    data: bytes, quality: int = QUALITY, *, record_size: int = RECORD, preprocessing: str = PAPER
) -> bytes:
    """Encodes `square_image` as a JPEG of the given quality (1..100).

    Chroma is kept at full resolution (4:4:4): every decoder then gives the same pixels, which 4:2:0 leaves to taste.
    """
    square = square_image(data, record_size=record_size, preprocessing=preprocessing)
    return simplejpeg.encode_jpeg(square, quality, 'RGB', '444', fastdct=False)


def decode_photo_crop(
    data: bytes,
    out: np.ndarray,
    *,
    top: int = 0,
    left: int = 0,
    mirrored: bool = False,
    record_size: int = RECORD,
    preprocessing: str = PAPER,
) -> None:
    """Decodes a crop of a photograph's `square_image`, with no JPEG's loss in between; see `decode_record_crop`."""
    try:
        order = 'BGR' if mirrored else 'RGB'  # see copy_crop
        place: Any = {'top': top, 'left': left, 'side': len(out)}
        pixels = square_image(data, **place, order=order, record_size=record_size, preprocessing=preprocessing)
    except UnusableImage as error:
        raise InputError(
            f'an image cannot be used ({error}): repair or remove it, or prepare the dataset with --on_error=skip'
        ) from error
    copy_crop(pixels, out, mirrored=mirrored)


def square_image(
    data: bytes,
    *,
    top: int = 0,
    left: int = 0,
    side: int | None = None,
    order: str = 'RGB',
    record_size: int = RECORD,
    preprocessing: str = PAPER,
) -> np.ndarray:
    """Resizes the shorter side to `record_size`; returns a crop of the centre square, uint8 (side, side, 3).

    Only the crop is computed. Resizing is bicubic with antialiasing; what has the size already keeps its pixels. A
    large JPEG is first reduced while it is read, never below twice the final size. EXIF orientation is applied;
    transparency is laid over white; CMYK becomes r = (255 - c) * (255 - k) / 255.

    The crop begins at row `top` and column `left` of the square and is `side` wide and high, None: the whole square.
    Its channels come in `order`, 'RGB' or 'BGR'. With another `preprocessing` (data/preprocessing.py) the square is
    that one's, made of all pixels of the photograph.

    Raises:
      UnusableImage: with the reason, in a few words.
    """
    try:
        pixels = _decode(data, order, min_side=2 * record_size if preprocessing == PAPER else _WHOLE)
    except UnidentifiedImageError as error:
        raise UnusableImage(explain_unidentified(data)) from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableImage(' '.join(str(error).split()) or type(error).__name__) from error
    if preprocessing != PAPER:
        end = side or record_size
        square = make_square(pixels, preprocessing, record_size)
        return np.ascontiguousarray(square[top : top + end, left : left + end])
    height, width, _ = pixels.shape
    square, side = min(height, width), side or record_size
    scale = square / record_size
    box = CropBox((width - square) / 2 + left * scale, (height - square) / 2 + top * scale, side * scale, side * scale)
    source = ImageData(width, height, PixelType.U8x3, pixels.tobytes())
    crop = ImageData(side, side, PixelType.U8x3)
    _thread.resizer.resize(source, crop, ResizeOptions(resize_alg=BICUBIC, crop_box=box))
    return np.frombuffer(crop.get_buffer(), np.uint8).reshape(side, side, 3)


def read_photo(path: str | os.PathLike[str]) -> bytes:
    """Reads an image's file; `UnusableImage` if that fails or it is too large to read."""
    try:
        check_file_size(os.stat(path).st_size)
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UnusableImage(error.strerror or str(error)) from error


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


def _decode(data: bytes, order: str, *, min_side: int) -> np.ndarray:
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
            return simplejpeg.decode_jpeg(data, order, min_height=min_side, min_width=min_side, min_factor=2)
        except ValueError:
            pass  # simplejpeg takes any irregularity for an error; Pillow, below, tells stray bytes from lost ones
    image.draft(None, (min_side, min_side))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    pixels = np.asarray(image.convert('RGB'))
    return pixels if order == 'RGB' else pixels[..., ::-1]
