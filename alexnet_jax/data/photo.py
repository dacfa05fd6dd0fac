"""Brings one photograph of any size to the 256 x 256 RGB that the paper trains on (section 2)."""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps

from alexnet_jax.data.items import UnusableImage
from alexnet_jax.data.statistics import IMAGE_SHAPE

SIDE = IMAGE_SHAPE[0]
MIN_SIDE = 16  # shorter side in pixels; below it, enlarging to 256 invents more than 99.6 % of the pixels
MAX_ASPECT = 10  # longer over shorter side; beyond it, the central square is under a tenth of the picture
QUALITY = 95  # JPEG quality of the records: about 40 kB a photograph, errors of about one grey level
MODES = (
    '1',
    'L',
    'LA',
    'P',
    'PA',
    'RGB',
    'RGBA',
)  # eight bits or fewer a channel, meaning known without a profile


def photo_to_jpeg(data: bytes, quality: int = QUALITY) -> bytes:
    """Shorter side to 256, centre 256 x 256, RGB, JPEG.

    Resizing is bicubic with antialiasing. A large JPEG is first reduced by a whole factor while it is read,
    never below twice the final size. EXIF orientation is applied; transparency is laid over white. Chroma is
    kept at full resolution (4:4:4): every decoder then gives the same pixels, which 4:2:0 leaves to taste.

    Args:
      data: an image file's bytes, 8 bits a channel; the content counts, not the file's name.
      quality: JPEG quality to write, 1..100.

    Raises:
      UnusableImage: with the reason, in a few words.
    """
    out = io.BytesIO()
    Image.fromarray(square_image(data)).save(out, 'JPEG', quality=quality, subsampling=0)
    return out.getvalue()


def square_image(data: bytes) -> np.ndarray:
    """The same before it is encoded: uint8 (256, 256, 3)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)  # over 89 million pixels
            image = _decode(data)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as e:
        raise UnusableImage(_one_line(e)) from e
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as e:
        raise UnusableImage(f'more than {Image.MAX_IMAGE_PIXELS} pixels') from e
    return np.asarray(ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC))


def _decode(data: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data))
    deep_png = data.startswith(b'\x89PNG') and data[24] > 8  # IHDR bit depth; Pillow hides that of RGB
    if deep_png or image.mode.startswith(('I', 'F')):
        raise UnusableImage('more than 8 bits a channel; convert it to 8')
    if image.mode not in MODES:
        raise UnusableImage(f'colour mode {image.mode}; convert it to RGB')
    short, long = sorted(image.size)
    if short < MIN_SIDE:
        raise UnusableImage(f'{image.width}x{image.height} is smaller than {MIN_SIDE} pixels')
    if long > MAX_ASPECT * short:
        raise UnusableImage(f'{image.width}x{image.height} is longer than {MAX_ASPECT}:1')
    image.draft(None, (2 * SIDE, 2 * SIDE))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return image.convert('RGB')


def _one_line(error: BaseException) -> str:
    if 'cannot identify image file' in str(error):  # Pillow's text names a memory address
        return 'not an image'
    return ' '.join(str(error).split()) or type(error).__name__
